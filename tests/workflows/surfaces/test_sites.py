from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import (
    bcc100,
    bcc110,
    bulk,
    fcc100,
    fcc110,
    fcc111,
    fcc211,
    hcp0001,
    surface,
)

from crack_md.structures import StructureEntry
from crack_md.workflows.surfaces.cut import CutSettings, cut_entries, parse_planes
from crack_md.workflows.surfaces.sites import find_sites
from crack_md.workflows.surfaces.slab import prepare_slab


def counted(atoms: Atoms) -> dict[str, int]:
    return {site.label: site.multiplicity for site in find_sites(prepare_slab(atoms))}


@pytest.mark.parametrize("metal", ["Ni", "Cu", "Pt", "Ag", "Au"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_fcc111_has_four_sites(metal: str, size: int) -> None:
    slab = fcc111(metal, (size, size, 4), vacuum=8.0)
    n = size**2
    assert counted(slab) == {"ontop": n, "bridge": 3 * n, "fcc": n, "hcp": n}


@pytest.mark.parametrize("metal", ["Ni", "Pt", "Au"])
def test_fcc100_has_three_sites(metal: str) -> None:
    slab = fcc100(metal, (2, 2, 4), vacuum=8.0)
    assert counted(slab) == {"ontop": 4, "bridge": 8, "4fold": 4}


def test_other_facets() -> None:
    ru = hcp0001("Ru", (2, 2, 4), vacuum=8.0)
    assert counted(ru) == {"ontop": 4, "bridge": 12, "fcc": 4, "hcp": 4}
    iron = bcc100("Fe", (2, 2, 4), vacuum=8.0)
    assert counted(iron) == {"ontop": 4, "bridge": 8, "4fold": 4}
    kinds = Counter(
        label.split("-")[0] for label in counted(fcc110("Ni", (2, 2, 4), vacuum=8.0))
    )
    assert kinds == {"ontop": 1, "bridge": 2, "hollow": 1}


def test_bcc_hollows_are_no_fcc_or_hcp() -> None:
    iron = bcc110("Fe", (2, 2, 4), vacuum=8.0)
    assert counted(iron) == {"ontop": 4, "bridge-1": 4, "bridge-2": 8, "hollow": 8}


@pytest.mark.parametrize("top", ["Ni", "Al"])
def test_atom_deep_in_a_hollow_does_not_hide_it(top: str) -> None:
    """On Al-terminated NiAl(100) the ball rests on four Al and the Ni beneath."""
    other = "Al" if top == "Ni" else "Ni"
    lattice = bulk(f"{other}{top}", "cesiumchloride", a=2.88)
    slab = surface(lattice, (1, 0, 0), 3, vacuum=8.0, periodic=True)
    assert slab.symbols[slab.positions[:, 2].argmax()] == top
    sites = find_sites(prepare_slab(slab))
    assert Counter(site.kind for site in sites) == {"ontop": 1, "bridge": 1, "4fold": 1}


def test_step_has_edge_bridge_and_fourfold() -> None:
    sites = find_sites(prepare_slab(fcc211("Pt", (3, 2, 4), vacuum=8.0)))
    kinds = Counter(site.kind for site in sites)
    assert kinds == {"ontop": 2, "bridge": 4, "fcc": 2, "hcp": 2, "4fold": 1}
    # the mirror across the step doubles the two bridges that are not on it
    counts = sorted(site.multiplicity for site in sites if site.kind == "bridge")
    assert counts == [2, 2, 4, 4]
    assert all(site.multiplicity == 2 for site in sites if site.kind != "bridge")


def test_fcc_and_hcp_by_the_atom_beneath() -> None:
    slab = prepare_slab(fcc111("Pt", (1, 1, 4), vacuum=8.0))
    sites = {site.kind: site for site in find_sites(slab)}
    layers = slab.atoms.positions
    hcp, fcc = sites["hcp"].position, sites["fcc"].position
    cell = slab.atoms.cell

    def same_column(a: np.ndarray, b: np.ndarray) -> bool:
        scaled = np.linalg.solve(cell.T, a - b)[:2]
        return bool(np.allclose(scaled, np.round(scaled), atol=1e-6))

    assert same_column(hcp, layers[2])  # second layer
    assert same_column(fcc, layers[1])  # third layer


def test_heights_are_where_covalent_radii_touch() -> None:
    """Pt-O: 1.36 + 0.66 Å, nearest neighbours a/√2 apart."""
    slab = prepare_slab(fcc111("Pt", (1, 1, 4), a=3.92, vacuum=8.0))
    top = slab.atoms.positions[:, 2].max()
    bond, apart = 1.36 + 0.66, 3.92 / np.sqrt(2)
    expected = {
        "ontop": bond,
        "bridge": np.sqrt(bond**2 - apart**2 / 4),
        "fcc": np.sqrt(bond**2 - apart**2 / 3),
        "hcp": np.sqrt(bond**2 - apart**2 / 3),
    }
    for site in find_sites(slab):
        assert site.position[2] - top == pytest.approx(expected[site.kind], abs=1e-6)


def ordered_alloy() -> Atoms:
    """L1_2-like top layer: one Cu and three Pt."""
    slab = fcc111("Pt", (2, 2, 4), vacuum=8.0)
    slab.numbers[12] = 29
    return slab


def test_ordered_alloy_sites_and_their_elements() -> None:
    sites = find_sites(prepare_slab(ordered_alloy()))
    described = Counter((site.kind, site.elements.split("/")[0]) for site in sites)
    assert described == {
        ("ontop", "Cu"): 1,
        ("ontop", "Pt"): 1,
        ("bridge", "CuPt"): 1,
        ("bridge", "Pt2"): 2,  # flanked by a Pt3 fcc or a Pt3 hcp hollow
        ("fcc", "Pt2Cu"): 1,
        ("fcc", "Pt3"): 1,
        ("hcp", "Pt2Cu"): 1,
        ("hcp", "Pt3"): 1,
    }
    assert sum(site.multiplicity for site in sites) == 4 + 12 + 4 + 4


def test_labels_say_what_an_alloy_site_is_made_of() -> None:
    sites = {site.label: site for site in find_sites(prepare_slab(ordered_alloy()))}
    assert list(sites) == [
        *("ontop-Cu", "ontop-Pt"),
        *("bridge-CuPt", "bridge-Pt2-1", "bridge-Pt2-2"),
        *("fcc-Pt2Cu", "fcc-Pt3", "hcp-Pt2Cu", "hcp-Pt3"),
    ]
    assert sites["fcc-Pt2Cu"].environment == "fcc-Pt2Cu"
    assert sites["fcc-Pt2Cu"].coordination == 3
    assert sites["bridge-CuPt"].coordination == 2


def test_labels_name_the_atoms_beneath_where_the_top_is_alike() -> None:
    slab = fcc111("Pt", (2, 2, 4), vacuum=8.0)
    slab.numbers[8] = 28
    labels = [site.label for site in find_sites(prepare_slab(slab))]
    assert {"hcp-Pt3/Ni", "hcp-Pt3/Pt", "fcc-Pt3/Pt2Ni", "fcc-Pt3/Pt3"} <= set(labels)
    assert len(set(labels)) == len(labels)
    slab.numbers[8:12] = 28  # a whole layer: kinds are enough again
    labels = [site.label for site in find_sites(prepare_slab(slab))]
    assert labels == ["ontop", "bridge", "fcc", "hcp"]


def test_labels_of_a_pure_step_are_numbered() -> None:
    labels = counted(fcc211("Pt", (3, 2, 4), vacuum=8.0))
    assert {"ontop-1", "ontop-2", "fcc-1", "fcc-2", "4fold"} <= set(labels)


def test_skin_is_told_apart_by_the_atoms_beneath() -> None:
    slab = fcc111("Pt", (2, 2, 4), vacuum=8.0)
    slab.numbers[8] = 28
    below = {site.elements for site in find_sites(prepare_slab(slab))}
    assert {"Pt3/Ni", "Pt3/Pt", "Pt3/Pt2Ni", "Pt3/Pt3"} <= below


def test_disordered_surface_has_every_site_once() -> None:
    slab = fcc111("Pt", (3, 3, 4), vacuum=8.0)
    numbers = np.random.default_rng(0).choice([47, 78], size=len(slab))
    slab.numbers[:] = numbers
    slab.rattle(0.03, seed=1)
    kinds = Counter(site.kind for site in find_sites(prepare_slab(slab)))
    assert kinds == {"ontop": 9, "bridge": 27, "fcc": 9, "hcp": 9}


def test_order_of_atoms_and_origin_do_not_matter() -> None:
    slab = ordered_alloy()
    moved = slab[np.random.default_rng(2).permutation(len(slab))]
    moved.pbc = True
    moved.positions += [1.3, 0.4, 2.0]
    moved.wrap()

    def summary(atoms: Atoms) -> Counter[tuple[str, str, int]]:
        sites = find_sites(prepare_slab(atoms))
        return Counter((site.kind, site.elements, site.multiplicity) for site in sites)

    assert summary(moved) == summary(slab)


def test_members_are_related_by_symmetry() -> None:
    slab = prepare_slab(ordered_alloy())
    for site in find_sites(slab):
        environments = []
        for member in site.members:
            probe = slab.atoms.copy()
            probe += Atoms("O", [member])
            distances = probe.get_distances(-1, range(16), mic=True)
            environments.append(np.sort(distances))
        assert np.allclose(environments, environments[0], atol=1e-3)


def cut(metal: str, plane: str) -> Atoms:
    (entry,) = cut_entries(
        [StructureEntry(metal, bulk(metal))],
        CutSettings(parse_planes(plane), width_A=2.0),
    )
    assert entry.atoms is not None
    return entry.atoms


@pytest.mark.parametrize(
    ("metal", "plane"),
    [
        *(("Pt", plane) for plane in ("110", "211", "311", "331", "755", "977")),
        *(("Fe", plane) for plane in ("111", "211")),
    ],
)
def test_sites_are_those_of_the_surface(metal: str, plane: str) -> None:
    """Order of atoms, supercell and choice of the cell change nothing but the count."""
    slab = cut(metal, plane)
    expected = counted(slab)
    larger = slab.repeat((2, 1, 1))
    shuffled = larger[np.random.default_rng(1).permutation(len(larger))]
    oblique = slab.repeat((1, 2, 1))
    oblique.cell[0] += oblique.cell[1] / 2
    for other in (shuffled, larger[::-1], oblique):
        assert counted(other) == {label: 2 * n for label, n in expected.items()}
    assert counted(slab[::-1]) == expected


def test_starts_agree_too() -> None:
    """A site of one label has the same distances to the slab however atoms lie."""
    slab = cut("Pt", "311")
    shuffled = slab.repeat((2, 1, 1))
    shuffled = shuffled[np.random.default_rng(5).permutation(len(shuffled))]

    def distances(atoms: Atoms) -> dict[str, np.ndarray]:
        prepared = prepare_slab(atoms)
        large = prepared.atoms.repeat((7, 7, 1))
        found = {}
        for site in find_sites(prepared):
            middle = site.position + 3 * (large.cell[0] + large.cell[1]) / 7
            found[site.label] = np.sort(
                np.linalg.norm(large.positions - middle, axis=1)
            )[:12]
        return found

    first, second = distances(slab), distances(shuffled)
    assert first.keys() == second.keys()
    for label, expected in first.items():
        assert second[label] == pytest.approx(expected, abs=1e-6)


def test_bridges_of_a_long_cell_are_one_class() -> None:
    """The threefold axis of fcc(111) is one of the surface, not of a 2×1 cell."""
    slab = fcc111("Pt", (2, 1, 4), vacuum=8.0)
    assert counted(slab) == {"ontop": 2, "bridge": 6, "fcc": 2, "hcp": 2}


def test_weakly_distorted_slabs_keep_their_distinct_sites() -> None:
    """One of four surface atoms is 0.05 Å higher: no longer like the other three."""
    slab = fcc111("Pt", (2, 2, 4), vacuum=8.0)
    slab.positions[12, 2] += 0.05
    counts = counted(slab)
    assert {counts["ontop-1"], counts["ontop-2"]} == {1, 3}
    assert sum(n for label, n in counts.items() if label.startswith("bridge")) == 12
    assert "fcc" not in counts


def test_number_of_a_label_goes_down_the_step() -> None:
    sites = {s.label: s for s in find_sites(prepare_slab(cut("Pt", "755")))}
    heights = [sites[f"ontop-{number}"].position[2] for number in range(1, 6)]
    assert np.diff(heights) == pytest.approx([heights[1] - heights[0]] * 4)
    assert heights[0] > heights[1]
