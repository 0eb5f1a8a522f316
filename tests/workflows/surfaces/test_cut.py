from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.spacegroup import crystal

from crack_md.errors import ConfigError
from crack_md.structures import StructureEntry
from crack_md.workflows.surfaces.cut import (
    CutSettings,
    Plane,
    cell_along,
    cut_entries,
    parse_planes,
)
from crack_md.workflows.surfaces.orientation import crystal_planes
from crack_md.workflows.surfaces.sites import find_sites
from crack_md.workflows.surfaces.slab import prepare_slab


def ordered_alloy() -> Atoms:
    """Pt3Ni of the L1_2 structure."""
    return crystal(
        ("Ni", "Pt"),
        basis=[(0, 0, 0), (0, 0.5, 0.5)],
        spacegroup=221,
        cellpar=[3.9, 3.9, 3.9, 90, 90, 90],
    )


def slabs_of(
    atoms: Atoms, planes: str, *, name: str = "X", **options: bool
) -> dict[str, StructureEntry]:
    settings = CutSettings(parse_planes(planes), **options)
    return {
        entry.name: entry
        for entry in cut_entries([StructureEntry(name, atoms)], settings)
    }


def kinds(entry: StructureEntry) -> Counter[str]:
    assert entry.atoms is not None
    return Counter(site.kind for site in find_sites(prepare_slab(entry.atoms)))


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("111", [(1, 1, 1)]),
        ("1-10, 211", [(1, -1, 0), (2, 1, 1)]),
        ("0001,10-10", [(0, 0, 1), (1, 0, 0)]),
    ],
)
def test_miller_indices(text: str, indices: list[tuple[int, int, int]]) -> None:
    assert [plane.indices for plane in parse_planes(text)] == indices


@pytest.mark.parametrize(
    "text", ["", "11", "1111", "000", "1 1 1", "a11", "111,", "1--11"]
)
def test_miller_indices_that_make_no_sense(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the Miller indices"):
        parse_planes(text)


def test_platinum_as_textbooks_have_it() -> None:
    slabs = slabs_of(bulk("Pt", a=3.92), "111,100,211", name="Pt-1")
    assert list(slabs) == ["Pt(111)", "Pt(100)", "Pt(211)"]
    close_packed = slabs["Pt(111)"].atoms
    assert close_packed is not None
    assert len(close_packed) == 16
    sides = close_packed.cell.lengths()[:2]
    assert sides == pytest.approx([np.sqrt(2) * 3.92] * 2)  # p(2x2)
    heights = np.unique(close_packed.positions[:, 2].round(3))
    assert np.diff(heights) == pytest.approx([3.92 / np.sqrt(3)] * 3, abs=2e-3)
    assert close_packed.cell[2, 2] == pytest.approx(np.ptp(heights) + 15.0, abs=2e-3)
    assert kinds(slabs["Pt(111)"]) == {"ontop": 1, "bridge": 1, "fcc": 1, "hcp": 1}
    assert kinds(slabs["Pt(100)"]) == {"ontop": 1, "bridge": 1, "4fold": 1}
    assert kinds(slabs["Pt(211)"])["4fold"] == 1


def test_hexagonal_crystals() -> None:
    slabs = slabs_of(bulk("Ru"), "0001,10-11", all_terminations=True)
    assert kinds(slabs["X(0001)"]) == {"ontop": 1, "bridge": 1, "fcc": 1, "hcp": 1}
    # two ways to cut between the unevenly spaced planes
    assert {"X(10-11) Ru-terminated 1", "X(10-11) Ru-terminated 2"} <= set(slabs)


def test_every_termination_of_an_alloy() -> None:
    """One cut makes two sides; both come up, and no more than these."""
    slabs = slabs_of(ordered_alloy(), "100,111", all_terminations=True)
    assert set(slabs) == {
        "X(100) Pt-terminated",
        "X(100) NiPt-terminated",
        "X(111)",
    }
    for name, top in (("Pt", "Pt8"), ("NiPt", "Ni4Pt4")):
        atoms = slabs[f"X(100) {name}-terminated"].atoms
        assert atoms is not None
        upper = atoms.positions[:, 2] > atoms.positions[:, 2].max() - 0.1
        assert atoms[upper].get_chemical_formula() == top


def test_one_termination_says_that_there_are_more() -> None:
    (entry,) = slabs_of(ordered_alloy(), "100").values()
    assert "1 of 2 terminations" in entry.notes[-1]
    (entry,) = slabs_of(ordered_alloy(), "111").values()
    assert not any("termination" in note for note in entry.notes)


def test_oxides_keep_whole_units() -> None:
    rutile = crystal(
        ("Ru", "O"),
        basis=[(0, 0, 0), (0.306, 0.306, 0)],
        spacegroup=136,
        cellpar=[4.49, 4.49, 3.11, 90, 90, 90],
    )
    slabs = slabs_of(rutile, "110", all_terminations=True)
    assert len(slabs) == 3
    for entry in slabs.values():
        assert entry.atoms is not None
        symbols = Counter(entry.atoms.symbols)
        assert symbols["O"] == 2 * symbols["Ru"]


def test_thickness_and_width_are_what_was_asked_for() -> None:
    settings = CutSettings(
        (Plane("111", (1, 1, 1)),), thickness_A=10.0, vacuum_A=20.0, width_A=7.5
    )
    (entry,) = cut_entries([StructureEntry("Cu", bulk("Cu"))], settings)
    assert entry.atoms is not None
    assert 10.0 <= np.ptp(entry.atoms.positions[:, 2]) < 12.1
    assert entry.atoms.cell.lengths()[:2] == pytest.approx([3 * 3.61 / np.sqrt(2)] * 2)
    assert len(entry.atoms) == 9 * 6


def test_what_is_no_bulk_becomes_a_row() -> None:
    overlap = bulk("Pt", cubic=True)
    overlap.positions[1] = overlap.positions[0]
    entries = [
        StructureEntry("slab", fcc111("Pt", (1, 1, 3), vacuum=8.0)),
        StructureEntry("overlap", overlap),
        StructureEntry("lost", None, "cannot be read"),
        StructureEntry("good", bulk("Pt")),
    ]
    slabs = cut_entries(entries, CutSettings((Plane("111", (1, 1, 1)),)))
    assert [(entry.name, entry.atoms is None) for entry in slabs] == [
        ("slab(111)", True),
        ("overlap(111)", True),
        ("lost", True),
        ("good(111)", False),
    ]
    statuses = [entry.status for entry in slabs[:3]]
    assert statuses == ["not_a_bulk", "bad_structure", "unreadable"]
    assert "leave it out to screen slabs" in slabs[0].error


def planes_of(atoms: Atoms, plane: str) -> tuple[float, float]:
    """Return spacing in Å and atoms/Å² of the planes parallel to a cut surface."""
    (entry,) = slabs_of(atoms, plane).values()
    assert entry.atoms is not None, entry.error
    heights = entry.atoms.positions[:, 2]
    plane_of = crystal_planes(heights)
    area = np.linalg.norm(np.cross(*entry.atoms.cell[:2]))
    counts = np.bincount(plane_of)
    means = np.bincount(plane_of, heights) / counts
    assert np.ptp(counts) == 0
    assert np.ptp(np.diff(means)) < 1e-9
    return float(means[1] - means[0]), float(counts[0] / area)


def face_centred(a: float, c: float) -> Atoms:
    atoms = bulk("Pt", a=a, cubic=True)
    atoms.set_cell([a, a, c], scale_atoms=True)
    return atoms


def test_indices_mean_the_tetragonal_lattice_as_given() -> None:
    """L1_0 PtCu and Pt strained by 1 %: formulas of crystallography, not of cubes."""
    ordered = face_centred(3.9, 3.6)
    ordered.numbers[ordered.positions[:, 2] > 1] = 29
    spacing = 1 / np.sqrt(2 / 3.9**2 + 1 / 3.6**2)
    assert spacing == pytest.approx(2.189, abs=1e-3)
    density = 4 * spacing / (3.9**2 * 3.6)
    assert planes_of(ordered, "111") == pytest.approx((spacing, density), abs=1e-6)
    assert density == pytest.approx(0.160, abs=1e-3)
    strained = face_centred(3.9592, 3.8808)
    assert planes_of(strained, "001") == pytest.approx((1.9404, 2 / 3.9592**2))
    along_a = planes_of(strained, "100")
    assert along_a == pytest.approx((1.9796, 2 / (3.9592 * 3.8808)))
    (entry,) = slabs_of(strained, "001").values()
    assert entry.atoms is not None
    assert entry.atoms.cell.lengths()[:2] == pytest.approx([np.sqrt(2) * 3.9592] * 2)


def test_indices_mean_the_orthorhombic_lattice_as_given() -> None:
    """A cell of one atom: 1/|h a* + k b* + l c*|, and the volume over it."""
    atoms = Atoms("Pt", cell=[2.6, 3.0, 3.5], pbc=True)
    for plane, index in (("100", (1, 0, 0)), ("010", (0, 1, 0)), ("121", (1, 2, 1))):
        spacing = 1 / np.linalg.norm(np.array(index) / [2.6, 3.0, 3.5])
        expected = (spacing, spacing / (2.6 * 3.0 * 3.5))
        assert planes_of(atoms, plane) == pytest.approx(expected)


@pytest.mark.parametrize("plane", ["111", "100", "110", "211", "311", "533", "755"])
def test_primitive_and_cubic_cells_give_the_same_planes(plane: str) -> None:
    """d = a/√(h² + k² + l²) where all indices are odd, half of it elsewhere."""
    h, k, n = (int(digit) for digit in plane)
    odd = h % 2 == k % 2 == n % 2 == 1
    spacing = 3.92 / np.sqrt(h * h + k * k + n * n) / (1 if odd else 2)
    for atoms in (bulk("Pt", a=3.92), bulk("Pt", a=3.92, cubic=True)):
        found = planes_of(atoms, plane)
        assert found == pytest.approx((spacing, 4 * spacing / 3.92**3))


def test_row_says_which_axes_the_indices_are_of() -> None:
    def axes(atoms: Atoms, plane: str = "111") -> str:
        (entry,) = slabs_of(atoms, plane).values()
        return entry.notes[0].split(";")[0].partition("indices of ")[2]

    cubic = "the cubic axes of the {} lattice, a = {} Å"
    assert axes(bulk("Pt", a=3.92)) == cubic.format("face-centred", "3.920")
    assert axes(bulk("Fe", a=2.87)) == cubic.format("body-centred", "2.870")
    assert axes(bulk("Pt", cubic=True)) == "the cell vectors as given"
    assert axes(bulk("Ru"), "0001") == "the hexagonal axes of the cell"
    strained = bulk("Pt", a=3.92)
    strained.set_cell(strained.cell * [1, 1, 1.01], scale_atoms=True)
    assert axes(strained) == "the cell vectors as given"
    other_choice = bulk("Fe", a=2.87)  # angles of 70.5° and 109.5°
    other_choice.cell[1] *= -1
    assert axes(other_choice) == cubic.format("body-centred", "2.870")


def test_random_alloy_in_a_primitive_supercell() -> None:
    """2×2×3 primitive cells: (111) and (100) are those of fcc, rattled or not."""
    atoms = bulk("Pt", a=3.92) * (2, 2, 3)
    atoms.numbers[np.random.default_rng(0).permutation(12)[:6]] = 29
    for amplitude in (0.0, 0.05):
        atoms.rattle(amplitude, seed=1)
        for plane, spacing in (("111", 3.92 / np.sqrt(3)), ("100", 3.92 / 2)):
            entry = next(iter(slabs_of(atoms, plane).values()))
            assert entry.atoms is not None
            plane_of = crystal_planes(entry.atoms.positions[:, 2])
            area = np.linalg.norm(np.cross(*entry.atoms.cell[:2]))
            density = np.bincount(plane_of) / area
            assert density == pytest.approx(4 * spacing / 3.92**3)
            assert (plane_of.max() + 1) == {"111": 4, "100": 5}[plane]


def test_hexagonal_cells_of_60_degrees_and_others() -> None:
    cobalt = bulk("Co", a=2.5, c=4.0)
    acute = cobalt.copy()
    acute.set_cell([acute.cell[0], acute.cell[0] + acute.cell[1], acute.cell[2]])
    for atoms in (cobalt, acute):
        assert planes_of(atoms, "0001") == pytest.approx((2.0, 2 / (np.sqrt(3) * 6.25)))
        (entry,) = slabs_of(atoms, "11-20").values()
        assert entry.atoms is not None
        heights = np.unique(entry.atoms.positions[:, 2].round(6))
        assert np.diff(heights) == pytest.approx(1.25)
    (refused,) = slabs_of(bulk("Pt", cubic=True), "0001").values()
    assert refused.status == "not_cut"
    assert "four Miller indices need a hexagonal cell" in refused.error


def test_strain_and_small_displacements_stay() -> None:
    """Nothing is averaged: what differs by 0.05 Å in the bulk differs in the slab."""
    atoms = bulk("Pt", a=3.92, cubic=True)
    atoms.positions[0, 2] += 0.05
    (entry,) = slabs_of(atoms, "001").values()
    assert entry.atoms is not None
    heights = np.unique(entry.atoms.positions[:, 2].round(6))
    steps = np.diff(heights)
    assert steps[steps < 0.2] == pytest.approx(0.05)


@pytest.mark.parametrize("indices", [(1, 1, 1), (0, 0, -1), (9, 7, 7), (2, -3, 5)])
def test_cells_along_planes(indices: tuple[int, int, int]) -> None:
    rows = cell_along(np.array(indices))
    assert (rows @ np.array(indices)).tolist() == [0, 0, 1]
    assert round(np.linalg.det(rows)) == 1


@pytest.mark.parametrize("size", [{"thickness_A": 1e9}, {"width_A": 1e5}])
def test_slabs_that_fit_no_memory_become_a_row(size: dict[str, float]) -> None:
    settings = CutSettings(parse_planes("111"), **size)
    (row,) = cut_entries([StructureEntry("Pt", bulk("Pt"))], settings)
    assert (row.atoms, row.status) == (None, "not_cut")
    assert "lower --thickness or --width" in row.error
