"""Runs whose steps the device of a model takes, several at a time."""

import json
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest
from ase.constraints import FixAtoms, FixCartesian

from crack_md import CrackCalculator
from crack_md.calculators.replicas.dynamics import STRETCH
from crack_md.workflows.md.carried import SplitDynamicsOnDevice
from crack_md.workflows.md.integrators import SplitDynamics, build_dynamics
from crack_md.workflows.md.run import MDResult, run_dynamics
from crack_md.workflows.md.settings import MDSettings
from crack_md.workflows.md.summary import read_thermo
from tests.calculators.engines import CountingEngine
from tests.factories import oxygen_slab, tiny_model
from tests.gpu_branches import take_gpu_branches
from tests.models.test_host_waits import waits

SETTINGS: dict[str, Any] = {
    "temperature_K": 300.0,
    "timestep_fs": 1.0,
    "steps": 60,
    "log_every": 15,
    "frames_every": 20,
    "restart_every": 40,
    "stop_at_broken_bonds": False,
    "seed": 3,
}


class OneByOne(CrackCalculator):
    """Answers as its model does, which nobody can know."""

    def calculate_many(self, *arguments: Any, **options: Any) -> Any:
        return super().calculate_many(*arguments, **options)


def slab() -> ase.Atoms:
    atoms = oxygen_slab()
    atoms.set_constraint(FixAtoms(range(4)))
    return atoms


def run(
    folder: Path, kind: type[CrackCalculator] = CrackCalculator, **changes: Any
) -> MDResult:
    calculator = kind(tiny_model(), device="cpu", dtype="float64")
    settings = MDSettings(**{**SETTINGS, **changes})
    return run_dynamics(slab(), calculator, settings=settings, folder=folder)


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
def test_runs_are_those_of_steps_one_by_one(tmp_path: Path, ensemble: str) -> None:
    ends = [
        run(tmp_path / kind.__name__, kind, ensemble=ensemble)
        for kind in (CrackCalculator, OneByOne)
    ]
    for end in ends:
        assert (end.status, end.step) == ("finished", 60)
    carried, single = (one.atoms for one in ends)
    np.testing.assert_allclose(carried.positions, single.positions, atol=1e-10)
    np.testing.assert_allclose(carried.get_momenta(), single.get_momenta(), atol=1e-9)
    thermo = [
        read_thermo(tmp_path / kind.__name__ / "thermo.csv")
        for kind in (CrackCalculator, OneByOne)
    ]
    for name, values in thermo[1].items():
        np.testing.assert_allclose(thermo[0][name], values, atol=1e-8, err_msg=name)
    heat = thermo[0]["total_energy_eV"] - thermo[0]["conserved_energy_eV"]
    assert (np.abs(heat[1:]) > 1e-6).all() == (ensemble == "langevin")


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
def test_two_halves_are_the_whole_to_the_last_bit(
    tmp_path: Path, ensemble: str
) -> None:
    whole = run(tmp_path / "whole", ensemble=ensemble)
    run(tmp_path / "parts", ensemble=ensemble, steps=47)
    parts = run(tmp_path / "parts", ensemble=ensemble)
    np.testing.assert_array_equal(parts.atoms.positions, whole.atoms.positions)
    np.testing.assert_array_equal(parts.atoms.get_momenta(), whole.atoms.get_momenta())
    files = [
        (tmp_path / name / "thermo.csv").read_text() for name in ("whole", "parts")
    ]
    assert files[0] == files[1]


def test_every_step_is_one_pass_of_the_model(tmp_path: Path) -> None:
    calculator = CrackCalculator(tiny_model(), device="cpu")
    engine = CountingEngine(calculator.models[0])
    calculator.engines[:] = [engine]
    settings = MDSettings(**{**SETTINGS, "ensemble": "nve", "restart_every": 60})
    run_dynamics(slab(), calculator, settings=settings, folder=tmp_path)
    # one at the start, and one after the restart files of steps 0 and 60
    assert len(engine.passes) == 60 + 1 + 2


def test_a_run_that_is_too_hot_stops_where_it_would(tmp_path: Path) -> None:
    settings = MDSettings(**{**SETTINGS, "ensemble": "nve", "temperature_K": 50.0})
    ends = [
        run_dynamics(
            oxygen_slab(rattle=0.2),  # which becomes heat
            kind(device="cpu", compile=False),
            settings=settings,
            folder=tmp_path / kind.__name__,
        )
        for kind in (CrackCalculator, OneByOne)
    ]
    assert ends[0].status == ends[1].status == "too_hot"
    assert 1 < ends[0].step == ends[1].step
    assert ends[0].step % STRETCH


@pytest.mark.parametrize(
    ("constraint", "ensemble", "kind"),
    [
        (None, "nve", SplitDynamicsOnDevice),
        (FixAtoms([0]), "langevin", SplitDynamicsOnDevice),
        (FixCartesian([0], (True, False, False)), "nve", SplitDynamics),
        (None, "bussi", SplitDynamics),
    ],
)
def test_the_device_takes_what_it_can(
    constraint: Any, ensemble: Any, kind: type
) -> None:
    atoms = oxygen_slab()
    atoms.set_constraint(constraint)
    atoms.calc = CrackCalculator(tiny_model(), device="cpu")
    settings = MDSettings(ensemble=ensemble)
    found = build_dynamics(atoms, settings, np.random.default_rng(0), 30, {})
    assert isinstance(found, kind)


def test_what_was_nearest_on_the_way_is_kept(tmp_path: Path) -> None:
    calculator = CrackCalculator(device="cpu", compile=False)
    settings = MDSettings(**{**SETTINGS, "ensemble": "nve", "steps": 15})
    run_dynamics(slab(), calculator, settings=settings, folder=tmp_path)
    assert calculator.metadata.shortest_distances is not None
    assert json.loads((tmp_path / "summary.json").read_text())["domain_distance"] > 0.5


def test_the_host_waits_once_in_ten_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = slab()
    atoms.calc = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    settings = MDSettings(ensemble="nve", timestep_fs=0.1)  # candidates last
    dynamics = build_dynamics(atoms, settings, np.random.default_rng(0), 27, {})
    assert isinstance(dynamics, SplitDynamicsOnDevice)
    take_gpu_branches(atoms.calc.models[0], monkeypatch)
    dynamics.carrier.neighbors.fixes_width = True
    assert dynamics.advance(10) == 10
    with waits() as found:
        assert dynamics.advance(10) == 10
    assert found == ["cpu", "numpy"]
    atoms.positions[0] += 0.01  # somebody else moved it
    with waits() as found:
        dynamics.advance(10)
    assert len(found) > 2
