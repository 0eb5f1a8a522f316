import sys
from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.spacegroup import crystal

from crack_md.errors import ConfigError, MissingDependencyError
from crack_md.structures import StructureEntry
from crack_md.workflows.surfaces import cut
from crack_md.workflows.surfaces.cut import (
    CutSettings,
    Plane,
    cut_entries,
    parse_planes,
)
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
    pytest.importorskip("pymatgen.core")
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
    pytest.importorskip("pymatgen.core")
    settings = CutSettings(
        (Plane("111", (1, 1, 1)),), thickness_A=10.0, vacuum_A=20.0, width_A=7.5
    )
    (entry,) = cut_entries([StructureEntry("Cu", bulk("Cu"))], settings)
    assert entry.atoms is not None
    assert 10.0 <= np.ptp(entry.atoms.positions[:, 2]) < 12.1
    assert entry.atoms.cell.lengths()[:2] == pytest.approx([3 * 3.61 / np.sqrt(2)] * 2)
    assert len(entry.atoms) == 9 * 6


def test_what_is_no_bulk_becomes_a_row() -> None:
    pytest.importorskip("pymatgen.core")
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


def test_pymatgen_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymatgen.core.surface", None)
    with pytest.raises(
        MissingDependencyError, match=r"pip install 'crack-md\[surfaces"
    ):
        cut_entries(
            [StructureEntry("Pt", bulk("Pt"))], CutSettings(parse_planes("111"))
        )


def test_upside_down_keeps_all_distances() -> None:
    atoms = ordered_alloy() * (1, 2, 2)
    atoms.rattle(0.1, seed=0)
    turned = cut._upside_down(atoms)
    assert np.linalg.det(turned.cell) > 0
    assert turned.get_all_distances(mic=True) == pytest.approx(
        atoms.get_all_distances(mic=True)
    )
    assert np.argmax(turned.positions[:, 2]) == np.argmin(atoms.positions[:, 2])
