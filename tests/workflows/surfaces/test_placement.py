import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, fcc211
from ase.data import covalent_radii

from crack_md.workflows.surfaces.adsorbates import (
    ADSORBATES,
    CLEARANCE_SCALE,
    Adsorbate,
    Placement,
    adsorbate_named,
    place,
    random_starts,
    site_starts,
)
from crack_md.workflows.surfaces.sites import Site, find_sites, random_sites
from crack_md.workflows.surfaces.slab import Slab, prepare_slab

OXYGEN, HYDROXYL, PEROXYL = (ADSORBATES[name] for name in ("O", "OH", "OOH"))


@pytest.fixture(scope="module")
def slab() -> Slab:
    return prepare_slab(fcc111("Pt", (2, 2, 4), vacuum=8.0))


@pytest.fixture(scope="module")
def sites(slab: Slab) -> dict[str, Site]:
    return {site.label: site for site in find_sites(slab)}


def test_adsorbate_rides_on_the_relaxed_surface(
    slab: Slab, sites: dict[str, Site]
) -> None:
    relaxed = slab.atoms.copy()
    relaxed.positions[12:, 2] += 0.1
    placed = place(slab, Placement(OXYGEN, sites["fcc"]), relaxed=relaxed)
    assert placed.symbols[-1] == "O"
    assert placed.get_tags()[-1] == 2
    assert placed.positions[-1] == pytest.approx(
        np.add(sites["fcc"].position, [0, 0, 0.1])
    )
    assert [i for c in placed.constraints for i in c.get_indices()] == list(range(8))


def test_hydroxyl_on_top_by_hand(slab: Slab, sites: dict[str, Site]) -> None:
    """O above Pt at the sum of covalent radii; OH leans by 45° towards a neighbor."""
    placed = place(slab, Placement(HYDROXYL, sites["ontop"], 0), relaxed=slab.atoms)
    oxygen, hydrogen = placed.positions[-2:]
    assert oxygen == pytest.approx(sites["ontop"].position)
    lean = hydrogen - oxygen
    assert lean[2] == pytest.approx(0.69)
    assert np.hypot(*lean[:2]) == pytest.approx(0.69)
    below = np.argmin(np.linalg.norm(slab.atoms.positions - oxygen, axis=1))
    vectors = slab.atoms.get_distances(below, slab.surface, mic=True, vector=True)
    beside = vectors[np.linalg.norm(vectors, axis=1) > 0.1]
    cosine = beside @ lean / (np.linalg.norm(beside, axis=1) * 0.69)
    assert cosine.max() == pytest.approx(1.0)


@pytest.mark.parametrize(("adsorbate", "turns"), [(OXYGEN, 1), (HYDROXYL, 3)])
def test_only_what_leans_is_turned(
    sites: dict[str, Site], adsorbate: Adsorbate, turns: int
) -> None:
    starts = list(site_starts(adsorbate, tuple(sites.values()), orientations=3))
    assert len(starts) == 4 * turns
    assert len({start.key for start in starts}) == len(starts)
    angles = {start.azimuth_deg for start in starts}
    assert angles == ({None} if turns == 1 else {0, 120, 240})


def test_turns_are_about_the_normal(slab: Slab, sites: dict[str, Site]) -> None:
    fcc = sites["fcc"]
    placed = [
        place(slab, Placement(PEROXYL, fcc, turn), relaxed=slab.atoms)
        for turn in (0, 180)
    ]
    first, second = (atoms.positions[-3:] - atoms.positions[-3] for atoms in placed)
    assert second == pytest.approx(first * [-1, -1, 1], abs=1e-9)


def test_placement_turns_with_the_slab() -> None:
    atoms = fcc111("Pt", (2, 2, 4), vacuum=8.0)
    atoms.numbers[12] = 29
    turned = atoms.copy()
    turned.rotate(37.0, "z", rotate_cell=True)
    environments = []
    for structure in (atoms, turned):
        prepared = prepare_slab(structure)
        site = next(s for s in find_sites(prepared) if s.label == "ontop-Cu")
        placed = place(prepared, Placement(HYDROXYL, site, 0), relaxed=prepared.atoms)
        distances = placed.get_distances(-1, range(16), mic=True)
        environments.append(np.sort(distances))
    assert environments[0] == pytest.approx(environments[1], abs=1e-6)


@pytest.mark.parametrize("name", ["OH", "OOH", "H2O:O", "CH3OH:O", "C6H6:0"])
def test_molecules_start_clear_of_steps(name: str) -> None:
    slab = prepare_slab(fcc211("Pt", (3, 2, 4), vacuum=8.0))
    adsorbate = adsorbate_named(name)
    n_slab = len(slab.atoms)
    drawn = random_sites(slab, count=4, seed=0, adsorbate=adsorbate.binding)
    sites = find_sites(slab, adsorbate=adsorbate.binding)
    starts = [
        *site_starts(adsorbate, sites, orientations=2),
        *random_starts(adsorbate, drawn, seed=0),
    ]
    for start in starts:
        placed = place(slab, start, relaxed=slab.atoms)
        for index in range(n_slab + 1, len(placed)):
            distances = placed.get_distances(index, range(n_slab), mic=True)
            radii = covalent_radii[placed.numbers[:n_slab]]
            radii = radii + covalent_radii[placed.numbers[index]]
            assert (distances >= CLEARANCE_SCALE * radii - 1e-9).all()


def test_random_starts_repeat_and_keep_the_molecule(slab: Slab) -> None:
    drawn = random_sites(slab, count=5, seed=3)

    def structures(seed: int) -> list[Atoms]:
        starts = random_starts(PEROXYL, drawn, seed=seed)
        return [place(slab, start, relaxed=slab.atoms) for start in starts]

    first, again, other = structures(3), structures(3), structures(4)
    bonds = PEROXYL.atoms.get_all_distances()
    for one, two, three in zip(first, again, other, strict=True):
        assert np.array_equal(one.positions, two.positions)
        assert not np.allclose(one.positions[-1], three.positions[-1])
        assert one[-3:].get_all_distances() == pytest.approx(bonds)
