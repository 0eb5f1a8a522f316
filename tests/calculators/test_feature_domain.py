from pathlib import Path

import ase.io
import numpy as np
import pytest
from typer.testing import CliRunner

from crack_md.calculators import CrackCalculator
from crack_md.calculators.feature_domain import (
    feature_distance,
    node_features,
    training_statistics,
)
from crack_md.cli import app
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import ForceField, ModelMetadata
from tests.factories import oxygen_slab, tiny_model

FRAMES = [oxygen_slab(seed=seed) for seed in range(12)]


@pytest.fixture(scope="module")
def calculator() -> CrackCalculator:
    model = tiny_model(metadata=ModelMetadata("total", (8, 78)))
    statistics = training_statistics(model, FRAMES)
    metadata = ModelMetadata("total", (8, 78), feature_statistics=statistics)
    return CrackCalculator(
        ForceField(model.network, model.scale, metadata), dtype="float64"
    )


def test_features_do_not_depend_on_orientation() -> None:
    model, atoms = tiny_model(), FRAMES[0].copy()
    before = node_features(model, atoms)
    atoms.rotate(50, (1, 2, 3), rotate_cell=True)
    assert before.shape == (13, model.network.config.sphere_channels)
    assert node_features(model, atoms) == pytest.approx(before, abs=1e-8)


def test_training_data_are_inside_and_squeezed_ones_outside(
    calculator: CrackCalculator,
) -> None:
    distance = feature_distance(calculator)
    assert distance is not None
    assert np.median([distance(atoms)[0] for atoms in FRAMES]) < 1
    squeezed = FRAMES[0].copy()
    squeezed.set_cell(squeezed.cell * 0.75, scale_atoms=True)
    far, reason = distance(squeezed)
    assert far > 1
    assert f"{far:.1f} times as far from the training data" in reason


def test_element_without_training_atoms_is_infinitely_far(
    calculator: CrackCalculator,
) -> None:
    distance = feature_distance(calculator)
    assert distance is not None
    foreign = FRAMES[0].copy()
    foreign.symbols[3] = "Cu"
    value, reason = distance(foreign)
    assert value == np.inf
    assert "Cu (atom 3)" in reason


def test_model_without_statistics_has_no_distance() -> None:
    assert feature_distance(CrackCalculator(tiny_model(), dtype="float64")) is None


def test_command_adds_statistics_and_changes_nothing_else(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "bare.pt")
    ase.io.write(tmp_path / "train.traj", FRAMES)
    arguments = [str(tmp_path / "bare.pt"), str(tmp_path / "train.traj")]
    out = tmp_path / "domain.pt"
    done = CliRunner().invoke(app, ["domain", *arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "12 O, 144 Pt" in done.output
    bare, taught = load_model(tmp_path / "bare.pt"), load_model(out)
    assert bare.metadata.feature_statistics is None
    assert taught.metadata.feature_statistics is not None
    energies = []
    for model in (bare, taught):
        atoms = FRAMES[0].copy()
        atoms.calc = CrackCalculator(model)
        energies.append(atoms.get_potential_energy())
    assert energies[0] == energies[1]
    few = CliRunner().invoke(
        app, ["domain", *arguments, "--out", str(out), "--limit=2"]
    )
    assert "2 O, 24 Pt" in few.output
