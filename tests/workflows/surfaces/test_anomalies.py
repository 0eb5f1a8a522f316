"""Every anomaly is triggered, and just misses, at the distance of its definition."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111

from crack_md.workflows.surfaces.adsorbates import ADSORBATES, Placement, place
from crack_md.workflows.surfaces.outcome import adsorbate_anomalies, bonds
from crack_md.workflows.surfaces.sites import find_sites
from crack_md.workflows.surfaces.slab import Slab, prepare_slab

PT_O, PT_PT, O_H, O_O = 1.36 + 0.66, 2 * 1.36, 0.66 + 0.31, 2 * 0.66
SKIN = 0.6
"""Both atoms' shares."""


@pytest.fixture(scope="module")
def slab() -> Slab:
    return prepare_slab(fcc111("Pt", (2, 2, 4), vacuum=10.0))


def placed(slab: Slab, adsorbate: str, site: str) -> Atoms:
    chosen = next(s for s in find_sites(slab) if s.kind == site)
    start = Placement(ADSORBATES[adsorbate], chosen, 0)
    return place(slab, start, relaxed=slab.atoms)


def found(final: Atoms, initial: Atoms, slab: Slab) -> tuple[str, ...]:
    return adsorbate_anomalies(final, initial=initial, clean=slab.atoms)


@pytest.mark.parametrize("adsorbate", ["O", "OH", "OOH"])
@pytest.mark.parametrize("site", ["ontop", "bridge", "fcc", "hcp"])
def test_nothing_is_wrong_at_the_start(slab: Slab, adsorbate: str, site: str) -> None:
    atoms = placed(slab, adsorbate, site)
    assert found(atoms, atoms, slab) == ()


@pytest.mark.parametrize(
    ("scale", "limit"), [(1.0, PT_O + SKIN), (1.5, 1.5 * PT_O + SKIN)]
)
def test_bonds_end_where_oc20_has_them_end(scale: float, limit: float) -> None:
    for distance, bonded in ((limit - 1e-3, True), (limit + 1e-3, False)):
        pair = Atoms("PtO", [[0, 0, 0], [0, 0, distance]])
        assert bonds(pair, scale=scale)[0, 1] == bonded


@pytest.mark.parametrize("beyond", [False, True])
def test_desorbed(slab: Slab, beyond: bool) -> None:
    start = placed(slab, "O", "ontop")
    final = start.copy()
    limit = 1.5 * PT_O + SKIN
    final.positions[-1, 2] += limit - PT_O + (1e-3 if beyond else -1e-3)
    assert found(final, start, slab) == (("desorbed",) if beyond else ())


@pytest.mark.parametrize("beyond", [False, True])
def test_dissociated_hydroxyl(slab: Slab, beyond: bool) -> None:
    start = placed(slab, "OH", "ontop")
    final = start.copy()
    final.set_distance(-2, -1, O_H + SKIN + (1e-3 if beyond else -1e-3), fix=0)
    assert found(final, start, slab) == (("dissociated",) if beyond else ())


def test_dissociated_peroxyl_keeps_both_parts_on_the_surface(slab: Slab) -> None:
    """O* and OH* side by side: neither desorbed, but no OOH* any more."""
    start = placed(slab, "OOH", "fcc")
    final = start.copy()
    hydroxyl = placed(slab, "OH", "fcc").positions[-2:]
    final.positions[-2:] = hydroxyl + slab.atoms.cell[0] / 2
    assert final.get_distance(-3, -2, mic=True) > O_O + SKIN
    assert found(final, start, slab) == ("dissociated",)


def test_molecule_that_leaves_whole_is_desorbed_only(slab: Slab) -> None:
    start = placed(slab, "OOH", "ontop")
    final = start.copy()
    final.positions[-3:, 2] += 5.0
    assert found(final, start, slab) == ("desorbed",)


@pytest.mark.parametrize("beyond", [False, True])
def test_intercalated(slab: Slab, beyond: bool) -> None:
    """Above hcp an atom of the second layer lies straight below."""
    start = placed(slab, "O", "hcp")
    final = start.copy()
    below = np.flatnonzero(slab.atoms.get_tags() == 0)
    lateral = final.get_distances(-1, below, mic=True, vector=True)
    nearest = below[np.linalg.norm(lateral, axis=1).argmin()]
    limit = PT_O + SKIN + (-1e-3 if beyond else 1e-3)
    final.positions[-1, 2] = slab.atoms.positions[nearest, 2] + limit
    assert found(final, start, slab) == (("intercalated",) if beyond else ())


@pytest.mark.parametrize("beyond", [False, True])
def test_surface_bond_broken(slab: Slab, beyond: bool) -> None:
    """A surface atom that is lifted leaves all its neighbors behind."""
    start = placed(slab, "O", "ontop")
    final = start.copy()
    pair = slab.atoms.copy()
    lifted = int(np.argmin(start.get_distances(-1, range(16), mic=True)))
    limit = 1.5 * PT_PT + SKIN
    deeper = pair.positions[:, 2] < pair.positions[lifted, 2] - 1.0
    below = np.flatnonzero(bonds(pair)[lifted] & deeper)
    assert len(below) == 3
    height = np.sqrt(limit**2 - _lateral(pair, lifted, int(below[0])) ** 2)
    final.positions[[lifted, -1], 2] += (
        pair.positions[below[0], 2]
        + height
        - pair.positions[lifted, 2]
        + (1e-3 if beyond else -1e-3)
    )
    assert found(final, start, slab) == (("surface_changed",) if beyond else ())


def _lateral(atoms: Atoms, first: int, second: int) -> float:
    vector = atoms.get_distance(first, second, mic=True, vector=True)
    return float(np.hypot(*vector[:2]))


def test_surface_bond_made() -> None:
    """An adatom far from another in the clean slab touches it under the adsorbate."""
    clean = fcc111("Pt", (4, 4, 3), vacuum=10.0)
    apart = 2 * clean.get_distance(0, 1, mic=True)
    top = clean.positions[:, 2].max()
    clean += Atoms("Pt2", [[0, 0, top + 2.3], [apart, 0, top + 2.3]])
    clean.set_tags([0] * 32 + [1] * 18)
    clean.pbc = True
    start = clean.copy()
    start += Atoms("O", [[0, 0, top + 2.3 + PT_O]], tags=[2])
    final = start.copy()
    final.positions[49] = [2.7, 0, top + 2.3]
    assert adsorbate_anomalies(start, initial=start, clean=clean) == ()
    assert adsorbate_anomalies(final, initial=start, clean=clean) == (
        "surface_changed",
    )


def test_small_motion_is_tolerated(slab: Slab) -> None:
    start = placed(slab, "O", "fcc")
    final = start.copy()
    final.rattle(0.15, seed=0)
    assert found(final, start, slab) == ()


def test_several_at_once_worst_first(slab: Slab) -> None:
    start = placed(slab, "OH", "fcc")
    final = start.copy()
    final.positions[-2, 2] -= 2.5
    final.positions[-1, 2] += 5.0
    assert found(final, start, slab) == ("dissociated", "intercalated")


@pytest.mark.parametrize("vacuum", [6.2, 6.6, 7.0])
def test_bonds_do_not_cross_a_thin_vacuum(vacuum: float) -> None:
    """O in the middle is nearer to the next slab than bonds may be at scale 1.5."""
    clean = fcc111("Au", (2, 2, 4), vacuum=vacuum / 2, periodic=True)
    clean.center(vacuum=vacuum / 2, axis=2)
    top = clean.positions[:, 2].max()
    final = clean + Atoms("O", [[0.0, 0.0, top + vacuum - 2.0]])
    final.set_tags([*clean.get_tags(), 2])
    initial = final.copy()
    initial.positions[-1, 2] = top + 2.0
    found = adsorbate_anomalies(final, initial=initial, clean=clean)
    assert "desorbed" in found
    assert "surface_changed" not in found
