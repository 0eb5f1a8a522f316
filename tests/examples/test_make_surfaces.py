import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from ase.geometry import find_mic

EXAMPLES = Path(__file__).parents[2] / "examples"


def load() -> ModuleType:
    path = EXAMPLES / "make_surfaces.py"
    spec = importlib.util.spec_from_file_location("make_surfaces", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def layers(slab: Atoms) -> list[str]:
    """Return the formula of each layer, from the top down."""
    heights = np.unique(slab.positions[:, 2].round(2))[::-1]
    planes = [np.abs(slab.positions[:, 2] - height) < 0.1 for height in heights]
    return [slab[plane].get_chemical_formula() for plane in planes]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Pt/Ni/Pt(111)", ["Pt4", "Ni4", "Pt4", "Pt4"]),
        ("Pt/Co/Pt(111)", ["Pt4", "Co4", "Pt4", "Pt4"]),
        ("Pt3Ni(111)", ["NiPt3"] * 4),
        ("Pt3Co(111)", ["CoPt3"] * 4),
        ("Pt3Ni(111) Pt skin", ["Pt4", *["NiPt3"] * 3]),
        ("Pt3Co(111) Pt skin", ["Pt4", *["CoPt3"] * 3]),
        ("Pd3Ag(111)", ["AgPd3"] * 4),
    ],
)
def test_layers_are_what_the_name_says(name: str, expected: list[str]):
    assert layers(load().all_slabs()[name]) == expected


def test_distances_are_those_of_the_lattice_constants():
    slabs = load().all_slabs()
    # p(2x2) of fcc(111): both vectors are 2 a / √2 long
    for name, constant in [
        ("Pt(111)", 3.97),
        ("Pt/Ni/Pt(111)", 3.97),
        ("Pt3Ni(111)", 3.89),
        ("Pt3Co(111) Pt skin", 3.89),
        ("Pt3Cu(111)", 0.75 * 3.97 + 0.25 * 3.63),
    ]:
        lengths = slabs[name].cell.lengths()[:2]
        np.testing.assert_allclose(lengths, 2**0.5 * constant, atol=1e-9)


def test_no_minority_atoms_touch_in_the_ordered_alloys():
    slab = load().all_slabs()["Pt3Ni(111)"]
    nickel = np.flatnonzero(slab.symbols == "Ni")
    nearest = 3.89 / 2**0.5
    for first in nickel:
        others = nickel[nickel != first]
        assert slab.get_distances(first, others, mic=True).min() > 1.3 * nearest


def test_database_is_what_the_script_makes():
    slabs = load().all_slabs()
    stored = {
        row.name: row.toatoms() for row in connect(EXAMPLES / "surfaces.db").select()
    }
    assert list(stored) == list(slabs)
    assert len(slabs) < 22
    for name, slab in slabs.items():
        assert len(slab) == 16
        assert (
            stored[name].symbols.get_chemical_formula() == slab.get_chemical_formula()
        )
        np.testing.assert_allclose(stored[name].cell, slab.cell, atol=1e-12)
        # which image of an atom on an edge of the cell is taken is left to rounding
        moved, _ = find_mic(stored[name].positions - slab.positions, slab.cell)
        np.testing.assert_allclose(moved, 0.0, atol=1e-12)
