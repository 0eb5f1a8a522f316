"""Crystal symmetry holds mirrors: models that keep them, and those that do not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from typer.testing import CliRunner

from crack_md.api.inputs import describe_calculator
from crack_md.calculators import CrackCalculator
from crack_md.cli import app
from crack_md.models.architectures import architecture_from, build_network
from crack_md.models.checkpoint import save_model
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata
from crack_md.workflows.phonons.run import run_phonons
from crack_md.workflows.phonons.settings import PhononSettings
from tests.factories import tiny_model

pytest.importorskip("phonopy", reason="needs phonopy (pip install 'crack-md[phonons]')")
pytest.importorskip("seekpath", reason="needs seekpath")

STEP_A = 0.005


def student() -> CrackCalculator:
    """Return an ACE-like model of ruthenium with random weights, in float64."""
    options = {"name": "ace", "cutoff": 4.0, "channels": 8, "hidden_channels": 16}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = build_network(architecture_from(options))
    model = ForceField(network, EnergyScale(), ModelMetadata("total", (44,)))
    return CrackCalculator(model.double(), dtype="float64", device="cpu")


def modes_in_thz(atoms: Atoms, calculator: CrackCalculator) -> np.ndarray:
    """Return all modes of a cell by moving each atom each way: no symmetry is used."""
    atoms.calc = calculator
    rest, rows = atoms.positions.copy(), []
    for index in range(3 * len(atoms)):
        sides = []
        for sign in (1, -1):
            moved = rest.copy().ravel()
            moved[index] += sign * STEP_A
            atoms.positions = moved.reshape(-1, 3)
            sides.append(atoms.get_forces().ravel())
        rows.append((sides[1] - sides[0]) / (2 * STEP_A))
    weight = np.repeat(atoms.get_masses() ** -0.5, 3)
    matrix = weight[:, None] * np.array(rows) * weight
    squares = np.linalg.eigvalsh(0.5 * (matrix + matrix.T))
    roots = np.sign(squares) * np.sqrt(np.abs(squares))
    return np.asarray(roots / (2 * np.pi) * units.fs * 1000)


def test_hcp_ruthenium_agrees_with_its_full_matrix(tmp_path: Path):
    """2×2×1 cells hold Γ once and M three times."""
    crystal, calculator = bulk("Ru"), student()
    result = run_phonons(
        crystal,
        calculator,
        settings=PhononSettings(
            supercell=(2, 2, 1),
            displacement_A=STEP_A,
            spacing_per_A=1.0,
            mesh_length_A=5.0,
        ),
        folder=tmp_path,
    )
    points = {
        label: segment.frequency_THz[end]
        for segment in result.phonons.segments
        for end, label in zip((0, -1), segment.labels, strict=True)
    }
    found = np.sort(np.concatenate([points["Γ"], *[points["M"]] * 3]))
    known = modes_in_thz(crystal * (2, 2, 1), calculator)
    moving = np.abs(known) > 0.05  # the three zeros are roots of round-off
    assert moving.sum() == 21
    assert np.abs(known).max() > 1.0
    assert found[moving] == pytest.approx(known[moving], abs=0.002)


def test_models_say_whether_they_keep_mirrors():
    for reflections in (False, True):
        options = {"ffn": "gate", "activation": "gate", "reflections": reflections}
        info = describe_calculator(CrackCalculator(tiny_model(**options)))
        assert info.reflections is reflections
        assert bool(info.note_of_mirrors()) is not reflections
    assert describe_calculator(student()).reflections


@pytest.mark.parametrize("reflections", [False, True])
def test_the_command_says_it_in_one_line(reflections: bool, tmp_path: Path):
    save_model(tiny_model(reflections=reflections), tmp_path / "tiny.pt")
    bulk("Cu").write(tmp_path / "cu.traj")
    options = ["--model", tmp_path / "tiny.pt", "--no-relax", "--supercell", "2,2,2"]
    given = ["phonons", tmp_path / "cu.traj", *options, "--out", tmp_path / "out"]
    done = CliRunner().invoke(app, [str(word) for word in given])
    assert done.exit_code == 0, done.output
    notes = [
        line for line in done.stderr.splitlines() if "exact under rotations" in line
    ]
    assert len(notes) == (0 if reflections else 1)
