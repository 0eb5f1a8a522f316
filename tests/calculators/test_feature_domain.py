import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
from typer.testing import CliRunner

from crack_md.api.inputs import domain_distance
from crack_md.calculators import CrackCalculator
from crack_md.calculators.crack import (
    feature_distance,
    node_features,
    training_statistics,
)
from crack_md.cli import app
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import ForceField, ModelMetadata
from crack_md.models.limits import Limits
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


LIMITS_YAML = """
adsorbates: [O]
largest_shares: {Cu: 0.25}
label_spreads:
  - {metals: [Pt], spread_eV: 0.05}
  - metals: [Cu, Pt]
"""


def test_command_adds_limits_with_measured_spreads(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "bare.pt")
    (tmp_path / "limits.yaml").write_text(LIMITS_YAML)
    alloys = [frame.copy() for frame in FRAMES[:2]]
    for atoms, spread in zip(alloys, (0.3, 0.4), strict=True):
        atoms.symbols[0] = "Cu"
        atoms.info = {"teacher_spread": spread}
    ase.io.write(tmp_path / "train.extxyz", alloys)
    out = tmp_path / "limited.pt"
    options = ["--limits", str(tmp_path / "limits.yaml"), "--out", str(out)]
    bare = str(tmp_path / "bare.pt")
    done = CliRunner().invoke(app, ["domain", bare, *options])
    assert "leaves the spread of the labels open" in str(done.exception)
    done = CliRunner().invoke(
        app, ["domain", bare, str(tmp_path / "train.extxyz"), *options]
    )
    assert done.exit_code == 0, done.output
    metadata = load_model(out).metadata
    assert metadata.feature_statistics is not None
    limits = metadata.limits
    assert limits is not None
    assert limits.adsorbates == ("O",)
    assert limits.largest_shares == {29: 0.25}
    assert limits.label_spread([78, 8]) == 0.05
    assert limits.label_spread([29, 78, 8]) == pytest.approx(0.125**0.5)


def test_command_wants_something_to_store(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "bare.pt")
    done = CliRunner().invoke(
        app, ["domain", str(tmp_path / "bare.pt"), "--out", str(tmp_path / "out.pt")]
    )
    assert "nothing to store" in str(done.exception)
    assert not (tmp_path / "out.pt").exists()


def limited_calculator() -> CrackCalculator:
    limits = Limits(largest_shares={29: 0.25}, doubtful_elements={46: "0.3 eV off"})
    metadata = ModelMetadata("total", (8, 29, 46, 78), limits=limits)
    return CrackCalculator(tiny_model(metadata=metadata), dtype="float64")


def test_calculator_warns_once_of_what_is_beyond() -> None:
    calculator = limited_calculator()
    atoms = FRAMES[0].copy()
    atoms.calc = calculator
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.get_potential_energy()
    rich = FRAMES[0].copy()
    rich.symbols[rich.symbols == "Pt"] = "Cu"
    rich.calc = calculator
    with pytest.warns(UserWarning, match="100 % Cu near the surface"):
        rich.get_potential_energy()
    rich.symbols[1] = "Pd"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rich.get_potential_energy()


def test_calculator_warns_of_doubtful_elements() -> None:
    atoms = FRAMES[0].copy()
    atoms.symbols[0] = "Pd"
    atoms.calc = limited_calculator()
    with pytest.warns(UserWarning, match="Pd: 0.3 eV off"):
        atoms.get_potential_energy()


def test_screening_calls_what_is_beyond_out_of_domain() -> None:
    distance = domain_distance(limited_calculator())
    assert distance(FRAMES[0])[0] < 1
    rich = FRAMES[0].copy()
    rich.symbols[rich.symbols == "Pt"] = "Cu"
    far, why = distance(rich)
    assert far == pytest.approx(4.0)
    assert "Cu near the surface" in why
