"""Chains beside a training run: bounds, resuming, and what is reported."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule

from crack_md.calculators.replicas.langevin import Langevin
from crack_md.calculators.replicas.state import ForceBatch
from crack_md.data.dataset import LabelledStructure
from crack_md.data.torsions import dihedral_angles, distances
from crack_md.errors import ConfigError, DataError
from crack_md.graph import AtomGraph
from crack_md.models.force_field import EnergyScale, ModelMetadata
from crack_md.training.config import TrainConfig, check_config
from crack_md.training.crmse.chains import (
    ChainBounds,
    Chains,
    build_chains,
    torsion_turner,
    turned_starts,
)
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import train
from crack_md.training.losses.crmse import CrmseConfig
from tests.factories import tiny_model
from tests.training.factories import TINY, labelled, recipe, write_dataset
from tests.training.loop.test_trainer import assert_identical, stop_after

CRMSE = {
    "kind": "crmse",
    "temperature_K": 300.0,
    "weight": 0.1,
    "chains": 3,
    "steps_per_update": 2,
    "equilibrate_steps": 3,
}


def crmse_recipe(dataset: Path, folder: Path, **run: Any) -> dict[str, Any]:
    tree = recipe(dataset, folder, **run)
    tree["student"]["architecture"] = TINY | {"forces": "gradient"}
    tree["losses"] = [
        {"kind": "task", "energy_weight": 1.0, "force_weight": 1.0},
        dict(CRMSE),
    ]
    return tree


def config_of(tree: dict[str, Any]) -> TrainConfig:
    return check_config(tree, source="test")


def frame(name: str, *, energy: float = 0.0, shift: float = 0.0) -> LabelledStructure:
    atoms = molecule(name) if name != "Cu" else bulk("Cu", cubic=True)
    atoms.positions[0, 0] += shift
    free = np.ones(len(atoms), dtype=bool)
    return LabelledStructure(
        atoms, energy, np.zeros((len(atoms), 3)), None, "group", "thermal", free
    )


def test_a_resumed_run_equals_an_uninterrupted_one(
    dataset: Path, tmp_path: Path
) -> None:
    train(config_of(crmse_recipe(dataset, tmp_path / "whole")), quiet=True)
    halves = config_of(crmse_recipe(dataset, tmp_path / "halves"))
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 5)
        assert train(halves, quiet=True).stopped_by == "SIGTERM"
    train(halves, quiet=True)
    one, other = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("whole", "halves")
    )
    for part in ("objective", "optimizer", "contrast"):
        assert_identical(one[part], other[part], part)
    assert one["contrast"]["chains"]["step_count"] == 3 + 10 * 2


def test_the_gap_is_watched_at_every_validation(dataset: Path, tmp_path: Path) -> None:
    tree = crmse_recipe(dataset, tmp_path / "run", validate_every=2)
    train(config_of(tree), quiet=True)
    watched = [one for one in RunFolder(tmp_path / "run").metrics() if "gap_meV" in one]
    assert [one["step"] for one in watched] == [2, 4, 6, 8, 10]
    weight = 0.1
    for one in watched:
        weight *= 0.5 if one["gap_meV"] > 0 else 1.0
        assert one["crmse_weight"] == pytest.approx(weight)


def test_chains_need_validation_frames(tmp_path: Path) -> None:
    frames = [replace(labelled(number), split="train") for number in range(4)]
    tree = crmse_recipe(write_dataset(tmp_path / "d.aselmdb", frames), tmp_path / "run")
    with pytest.raises(DataError, match="has no validation frames, and a loss of kind"):
        train(config_of(tree), quiet=True)


def test_every_other_start_has_its_torsions_turned() -> None:
    """The twist of H2O2 is the one torsion; a start out of bounds stays as it was."""
    peroxide = molecule("H2O2")
    turn = torsion_turner([peroxide])
    assert turn is not None

    def twist(atoms: Atoms) -> float:
        return float(dihedral_angles(atoms.positions[None], ((2, 0, 1, 3),))[0, 0])

    class Flat:
        def __init__(self, errors: dict[int, str]) -> None:
            self.errors = errors

        def forces(self, positions: np.ndarray) -> ForceBatch:
            return ForceBatch(np.zeros(4), np.zeros_like(positions), self.errors)

    starts = [peroxide] * 4
    turned = turned_starts(starts, [turn] * 4, Flat({3: "too hot"}), seed=0)
    angles = [twist(atoms) for atoms in turned]
    assert angles[0] == angles[2] == angles[3] == twist(peroxide)
    assert abs(angles[1] - angles[0]) > 1
    lengths = distances(turned[1].positions[None], np.array([[0, 1], [0, 2], [1, 3]]))
    wanted = distances(peroxide.positions[None], np.array([[0, 1], [0, 2], [1, 3]]))
    np.testing.assert_allclose(lengths, wanted, atol=1e-12)


@pytest.mark.parametrize("atoms", [molecule("H2O"), bulk("Cu"), molecule("O2")])
def test_structures_without_torsions_start_as_they_are(atoms: Atoms) -> None:
    assert torsion_turner([atoms]) is None


def test_chains_are_reported_beside_the_losses(dataset: Path, tmp_path: Path) -> None:
    summary = train(config_of(crmse_recipe(dataset, tmp_path / "run")), quiet=True)
    logged = [one for one in RunFolder(tmp_path / "run").metrics() if "crmse" in one]
    last = logged[-1]
    json.dumps(logged, allow_nan=False)
    assert {
        "chain_energy_eV",
        "chain_energy_std_eV",
        "chain_energy_std_equipartition_eV",
        "chain_drift_meV_per_update",
        "chain_temperature_K",
        "chain_restarts",
        "crmse_weight",
    } <= set(last)
    assert last["crmse_weight"] > 0
    assert summary.throughput is not None
    assert 0.05 < summary.throughput.share_chains < 0.95
    assert summary.throughput.share_student > 0


def test_chains_leave_the_student_in_training() -> None:
    student = tiny_model(
        metadata=ModelMetadata("total", (1, 6, 8), {}),
        scale=EnergyScale(),
    ).train()
    frames = [frame("CH3OH", energy=1e3, shift=0.01 * i) for i in range(3)]
    chains = build_chains(
        CrmseConfig(kind="crmse", temperature_K=300.0, weight=1e-3, chains=4),
        student,
        frames,
        seed=0,
    )
    before = chains.replicas.state.positions.copy()
    chains.advance()
    assert student.training
    assert all(weight.grad is None for weight in student.parameters())
    assert np.abs(chains.replicas.state.positions - before).max() > 1e-3
    graph = chains.graph()
    assert graph.n_structures == len(chains) == 4
    np.testing.assert_allclose(
        student.energy(graph).detach().numpy(), chains.replicas.state.energies
    )


def test_bounds_of_a_molecule() -> None:
    frames = [frame("H2O", energy=energy) for energy in (-1.0, 1.0)]
    bounds = ChainBounds.of(frames, 300.0)
    assert bounds.bonds.tolist() == [[0, 1], [0, 2]]
    # three modes of water: sqrt(3/2) kT; the spread of the data, 1 eV, is larger
    thermal = np.sqrt(3 / 2) * units.kB * 300
    assert bounds.thermal_spread == pytest.approx(thermal)
    assert bounds.highest_energy == pytest.approx(6.0)
    water = molecule("H2O").positions
    assert bounds.broken(water, 5.9) is None
    assert bounds.broken(water, -500.0) is None, "false minima are wanted"
    assert "6.10 eV above" in str(bounds.broken(water, 6.1))
    apart = water.copy()
    apart[2] += 0.6 * (apart[2] - apart[0]) / np.linalg.norm(apart[2] - apart[0])
    assert "bond 0–2 is +0.60 Å" in str(bounds.broken(apart, 0.0))


def test_crystals_have_no_bonds_to_break() -> None:
    bounds = ChainBounds.of([frame("Cu")], 300.0)
    assert len(bounds.bonds) == 0
    apart = bulk("Cu", cubic=True).positions * 3
    assert bounds.broken(apart, 0.0) is None


def test_a_chain_out_of_bounds_starts_again_and_is_counted() -> None:
    student = tiny_model(
        metadata=ModelMetadata("total", (1, 6, 8), {}), scale=EnergyScale()
    )
    frames = [frame("H2O", energy=-1e4)]  # what the model says is far above
    chains = build_chains(
        CrmseConfig(kind="crmse", temperature_K=300.0, weight=1e-3, chains=2),
        student,
        frames,
        seed=0,
    )
    chains.advance(3)
    assert chains.report()["chain_restarts"] == 6
    assert "above the mean" in chains.replicas.state.blow_ups[0].reason


class Pull:
    """A constant force in eV/Å on the first atom of two waters, for no energy."""

    def forces(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        forces = np.zeros_like(positions)
        forces[[0, 3], 2] = [51.0, 500.0]
        return np.zeros(2), forces

    def graph(self, positions: np.ndarray) -> AtomGraph:
        raise NotImplementedError


def test_chains_blow_up_by_the_rule_of_all_replicas() -> None:
    """By heat, as with any calculator; no force is too large as long as it heats not.

    In half a step of 0.5 fs, 51 eV/Å give an oxygen 0.019 eV, and 500 eV/Å 1.8 eV: with
    nine degrees of freedom (3 + 30/9) 300 K are 0.74 eV.
    """
    water = molecule("H2O")
    bounds = ChainBounds.of([frame("H2O")], 300.0)
    dynamics = Langevin(300.0, 10.0, 0.5)
    chains = Chains([water] * 2, Pull(), [bounds] * 2, dynamics, steps=1, seed=1)
    chains.advance()
    events = chains.replicas.state.blow_ups
    assert [event.replica for event in events] == [1]
    assert events[0].reason.endswith("above 1900 K")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": {"forces": "direct"}}, "needs student.architecture.forces"),
        ({"losses": "alone"}, "alone leaves the zero of energy open"),
        ({"losses": "twice"}, "a second loss of kind 'crmse'"),
        ({"run": {"accumulate": 2}}, "runs its chains in one process"),
        ({"loss": {"weight": 0.0}}, "weight"),
        ({"loss": {"temperature_K": -1.0}}, "temperature_K"),
    ],
)
def test_what_chains_cannot_do_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tree = crmse_recipe(tmp_path / "data.aselmdb", tmp_path / "run")
    tree["student"]["architecture"] |= change.get("student", {})
    tree["run"] |= change.get("run", {})
    tree["losses"][1] |= change.get("loss", {})
    if change.get("losses") == "alone":
        del tree["losses"][0]
    elif change.get("losses") == "twice":
        tree["losses"].append(tree["losses"][1])
    with pytest.raises(ConfigError, match=message):
        config_of(tree)
