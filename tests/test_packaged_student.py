"""The model in the wheel: small, complete, conservative and sane."""

import re

import ase
import numpy as np
import pytest
from ase.build import add_adsorbate, fcc111

from crack_md import CrackCalculator, screen
from crack_md.models.registry import dated_name, model_names, model_path
from crack_md.neighbors import SmoothNeighbors
from crack_md.workflows.orr import SCALINGS, SOLVATIONS

ELEMENTS = ["Ag", "Au", "Cu", "H", "Ir", "O", "Pd", "Pt", "Rh", "Ru"]


def oxygen_on_platinum(height: float = 1.2) -> ase.Atoms:
    slab = fcc111("Pt", (2, 2, 3), a=3.97, vacuum=7.0, periodic=True)
    add_adsorbate(slab, "O", height, "fcc")
    return slab


def test_files_are_small():
    assert model_names()
    paths = {model_path(name) for name in model_names()}
    assert sum(path.stat().st_size for path in paths) < 12e6


def test_every_model_has_a_dated_name_and_a_card():
    for name in model_names():
        dated = dated_name(name)
        assert re.search(r"-20\d\d-\d\d", dated), name
        assert model_path(name).with_suffix(".md").is_file(), name


def test_it_says_what_it_is():
    model = CrackCalculator().models[0]
    assert isinstance(model.rule, SmoothNeighbors)
    assert model.forces == "gradient"
    metadata = model.metadata
    assert metadata.energy_reference == "total"
    assert set(ase.Atoms(ELEMENTS).numbers) <= set(metadata.elements)
    assert {"H2O", "H2"} <= set(metadata.gas_references)
    for key in ("teacher", "teacher_sha256", "licence"):
        assert metadata.provenance[key], key


def test_forces_are_the_slope_of_the_energy():
    atoms = oxygen_on_platinum()
    atoms.rattle(0.05, seed=1)
    atoms.calc = CrackCalculator(dtype="float64")
    forces = atoms.get_forces()
    step = 1e-4
    for axis in range(3):
        energies = []
        for sign in (+1, -1):
            moved = atoms.copy()
            moved.positions[-1, axis] += sign * step
            moved.calc = atoms.calc
            energies.append(moved.get_potential_energy())
        slope = (energies[1] - energies[0]) / (2 * step)
        assert forces[-1, axis] == pytest.approx(slope, abs=1e-5)


def test_oxygen_is_pulled_to_its_site():
    calc = CrackCalculator()
    heights = np.array([0.7, 1.2, 2.5])
    pulls = []
    for height in heights:
        atoms = oxygen_on_platinum(height)
        atoms.calc = calc
        pulls.append(atoms.get_forces()[-1, 2])
    assert pulls[0] > 1.0  # pushed out
    assert pulls[2] < -0.3  # drawn in


def test_platinum_has_its_published_limiting_potential(tmp_path):
    """From computed O* and OH*: 0.72 V with this water, 0.75 V in Hansen 2014."""
    slab = fcc111("Pt", (2, 2, 4), a=3.97, vacuum=8.0)
    found = screen(
        slab, CrackCalculator(), adsorbates="orr", out=tmp_path, orientations=1
    )
    (row,) = found.rows
    assert row["inferred"] == "OOH"
    assert abs(row["U_L_V"] - SOLVATIONS[row["solvation"]].pt111_V) < 0.15
    assert abs(row["U_L_V"] - SCALINGS[row["scaling"]].pt111_V) < 0.15
    assert row["U_L_by_model_V"] == pytest.approx(0.13)  # of labels; OH* limits
    published = found.summary["pt111"]
    assert (published["U_L_V"], published["published_U_L_V"]) == (
        pytest.approx(row["U_L_V"], abs=1e-4),
        0.72,
    )
