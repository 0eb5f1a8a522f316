"""Steps on the device are those of the host, of ASE, and of closed forms."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet

from crack_md import CrackCalculator
from crack_md.calculators import BatchEvaluator, Langevin, Replicas
from crack_md.calculators.engine import EagerEngine
from crack_md.calculators.replicas.dynamics import STRETCH, CarriedDynamics
from crack_md.calculators.replicas.on_device import Carrier
from crack_md.graph import AtomGraph, sum_over_structures
from crack_md.models.force_field import Prediction
from tests.factories import graph_of, oxygen_slab, tiny_model, water
from tests.gpu_branches import take_gpu_branches
from tests.models.test_host_waits import waits

NVE = Langevin(300.0, friction_per_ps=0.0, timestep_fs=1.0)
WARM = Langevin([300.0, 200.0, 500.0], [5.0, 0.0, 1.0], 1.0)
MASS, STIFFNESS = 16.0, 10.0


def moving(atoms: ase.Atoms, temperature_K: float = 300.0) -> ase.Atoms:
    """Return the atoms with velocities and no momentum."""
    random = np.random.default_rng(0)
    spread = np.sqrt(units.kB * temperature_K / atoms.get_masses())[:, None]
    atoms.set_velocities(spread * random.normal(size=(len(atoms), 3)))
    atoms.set_momenta(atoms.get_momenta() - atoms.get_momenta().mean(axis=0))
    return atoms


def device_of(replicas: Replicas) -> Carrier:
    assert isinstance(replicas._dynamics, CarriedDynamics)
    return replicas._dynamics.carrier


def on_host(replicas: Replicas) -> Replicas:
    """Return the replicas, moved by the host step by step."""
    replicas._dynamics = replicas._host
    return replicas


def as_on_gpu(replicas: Replicas, patch: pytest.MonkeyPatch) -> Replicas:
    """Return the replicas with the branches that a GPU takes."""
    device = device_of(replicas)
    device.neighbors.fixes_width = True
    take_gpu_branches(device._engine.model, patch)
    return replicas


def three() -> list[ase.Atoms]:
    slab = oxygen_slab(seed=1)
    slab.set_constraint(FixAtoms(range(4)))
    return [slab, water(), bulk("Pt", a=3.9) * (1, 1, 2)]


class SpringEngine(EagerEngine):
    """U = k/2 |r|² for every atom, whatever the model says."""

    def __call__(self, graph: AtomGraph, *, stress: bool = False) -> Prediction:
        positions = graph.positions
        energies = STIFFNESS / 2 * positions.square().sum(dim=1)
        total = sum_over_structures(energies, graph)
        return Prediction(total, -STIFFNESS * positions, None, positions, energies)


def oscillator(omega_dt: float, friction_per_ps: float = 0.0) -> Replicas:
    """Return one atom on a spring, displaced along x by 1 Å and at rest."""
    atoms = ase.Atoms("O", [[1.0, 0.0, 0.0]], masses=[MASS])
    dynamics = Langevin(
        0.0, friction_per_ps, omega_dt / np.sqrt(STIFFNESS / MASS) / units.fs
    )
    evaluator = BatchEvaluator([SpringEngine(tiny_model())], skin=5.0)
    replicas = Replicas([atoms], evaluator, dynamics, keep_velocities=True)
    assert device_of(replicas)
    return replicas


def energy(replicas: Replicas) -> float:
    return float(replicas.state.energies[0] + replicas.kinetic_energies[0])


# --------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("omega_dt", [0.05, 0.5, 1.2])
def test_verlet_turns_an_oscillator_by_its_own_angle(omega_dt: float) -> None:
    """x_n = x_0 cos(n θ) with cos θ = 1 − (ωΔt)²/2, at every time step."""
    replicas = oscillator(omega_dt)
    angle = np.arccos(1 - omega_dt**2 / 2)
    for n in (1, 7, 40):
        replicas.run(n - replicas.state.step_count)
        found = replicas.state.positions[0]
        np.testing.assert_allclose(found, [np.cos(n * angle), 0, 0], atol=1e-12)


def test_verlet_errs_in_energy_as_its_step_squared() -> None:
    """E − E_0 is k x_0² (ωΔt)²/8 at most: ½ m v² + ½ k x² (1 − (ωΔt)²/4) stays."""
    largest = {}
    for omega_dt in (0.2, 0.1):
        replicas = oscillator(omega_dt)
        start, errors, shadows = energy(replicas), [], []
        for _ in range(round(7 / omega_dt)):  # more than a turn
            replicas.run(1)
            errors.append(energy(replicas) - start)
            shadows.append(
                replicas.kinetic_energies[0]
                + replicas.state.energies[0] * (1 - omega_dt**2 / 4)
            )
        np.testing.assert_allclose(shadows, start * (1 - omega_dt**2 / 4), rtol=1e-12)
        largest[omega_dt] = np.abs(errors).max()
        expected = STIFFNESS * omega_dt**2 / 8
        assert largest[omega_dt] == pytest.approx(expected, rel=0.01)
    assert largest[0.2] / largest[0.1] == pytest.approx(4, rel=0.02)


# ----------------------------------------------------------------------- ASE, host


def test_nve_of_the_packaged_student_is_that_of_ase() -> None:
    calculator = CrackCalculator(dtype="float64", device="cpu", compile=False)
    atoms = moving(oxygen_slab(), 500.0)
    replicas = Replicas([atoms], calculator, NVE, keep_velocities=True)
    total = energy(replicas)
    replicas.run(50)
    momenta = replicas.structures()[0].get_momenta()
    atoms.calc = calculator
    VelocityVerlet(atoms, units.fs).run(50)
    found = replicas.state
    np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-11)
    np.testing.assert_allclose(found.velocities, atoms.get_velocities(), atol=1e-11)
    assert found.energies[0] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert np.abs(momenta.sum(axis=0)).max() < 1e-10
    assert energy(replicas) == pytest.approx(total, abs=2e-3)
    device = device_of(replicas)
    assert (device.n_refused, device.neighbors.n_builds) == (0, 1)


@pytest.mark.parametrize("like_gpu", [False, True])
def test_steps_are_those_of_the_host(
    like_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calculator = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    host = on_host(Replicas(three(), calculator, WARM, seeds=3))
    device = Replicas(three(), calculator, WARM, seeds=3)
    host.run(47)
    if like_gpu:
        as_on_gpu(device, monkeypatch)
    device.run(47)
    assert device_of(device).n_refused == 0
    for name in ("positions", "velocities", "energies", "forces"):
        found, expected = getattr(device.state, name), getattr(host.state, name)
        np.testing.assert_allclose(found, expected, atol=1e-10)
    assert device.state.step_count == host.state.step_count == 47


def test_a_stopped_run_goes_on_to_the_same_bits() -> None:
    calculator = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    whole, parts, other = (Replicas(three(), calculator, WARM) for _ in range(3))
    whole.run(31)
    parts.run(13)
    other.load_state_dict(parts.state_dict())
    other.run(18)
    for name in ("positions", "velocities", "energies", "forces"):
        np.testing.assert_array_equal(
            getattr(other.state, name), getattr(whole.state, name)
        )


def test_candidates_are_found_again_before_atoms_outrun_them() -> None:
    hot = Langevin(2000.0, friction_per_ps=0.0, timestep_fs=2.0)
    calculator = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    runs = [Replicas([oxygen_slab()], calculator, hot, seeds=2) for _ in range(2)]
    on_host(runs[1])
    for replicas in runs:
        replicas.run(60)
    device = device_of(runs[0])
    assert device.neighbors.n_builds > 2
    assert device.n_refused == 0
    np.testing.assert_array_equal(runs[0].state.positions, runs[1].state.positions)


# ------------------------------------------------------------------ what goes wrong


def test_a_full_table_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that has no empty slot may have lost a neighbor."""
    calculator = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    device, host = (Replicas(three(), calculator, WARM, seeds=1) for _ in range(2))
    as_on_gpu(device, monkeypatch)
    device.run(STRETCH)
    neighbors = device_of(device).neighbors
    neighbors.width = neighbors.widest
    monkeypatch.setattr(neighbors, "will_last", lambda *_: True)
    device.run(STRETCH)
    assert device_of(device).n_refused == 1
    monkeypatch.undo()
    on_host(host).run(2 * STRETCH)
    np.testing.assert_allclose(device.state.positions, host.state.positions, atol=1e-10)


def test_more_edges_than_there_is_room_for_are_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calculator = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    replicas = Replicas(three(), calculator, WARM, seeds=1)
    as_on_gpu(replicas, monkeypatch)
    replicas.run(STRETCH)
    neighbors = device_of(replicas).neighbors
    graph, fine = neighbors(neighbors._origin)
    n_edges = int(graph.mask.sum())
    assert fine
    assert n_edges <= graph.most_edges <= 1.125 * n_edges + 1
    neighbors.most_edges = n_edges - 1
    assert not neighbors(neighbors._origin)[1]


def _outrun(neighbors: Any) -> torch.Tensor:
    return neighbors._origin + torch.tensor([[0.6, 0.0, 0.0]])


def _on_top(neighbors: Any) -> torch.Tensor:
    return neighbors._origin[:1].expand_as(neighbors._origin)


def _nowhere(neighbors: Any) -> torch.Tensor:
    return neighbors._origin * torch.nan


@pytest.mark.parametrize("spoilt", [_outrun, _on_top, _nowhere])
def test_graphs_that_may_be_wrong_are_told(spoilt: Callable[[Any], Any]) -> None:
    calculator = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    replicas = Replicas(three(), calculator, WARM)
    replicas.run(1)
    neighbors = device_of(replicas).neighbors
    assert neighbors(neighbors._origin)[1]
    assert not neighbors(spoilt(neighbors))[1]


def test_graphs_are_those_that_are_built_anew() -> None:
    model = tiny_model()
    replicas = Replicas(three(), CrackCalculator(model, device="cpu"), WARM)
    replicas.run(23)
    neighbors = device_of(replicas).neighbors
    found, _ = neighbors(torch.tensor(replicas.state.positions))
    expected = graph_of(model, *replicas.structures())
    assert found.most_edges == expected.most_edges
    for one, other in zip(found[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(one, other.to(one.dtype), rtol=0, atol=0)


def test_what_blows_up_starts_again_as_on_the_host() -> None:
    limits: dict[str, Any] = {"max_temperature_K": [1e9, 1e9, 450.0], "seeds": 5}
    calculator = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    runs = [Replicas(three(), calculator, WARM, **limits) for _ in range(2)]
    on_host(runs[1])
    for replicas in runs:
        replicas.run(40)
    assert runs[0].n_blow_ups[2] > 0
    assert [one[:2] for one in runs[0].state.blow_ups] == [
        one[:2] for one in runs[1].state.blow_ups
    ]
    assert device_of(runs[0]).n_refused > 0
    found, expected = (one.state.positions for one in runs)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_an_error_on_the_device_is_logged_and_left_to_the_host(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("nothing left")

    calculator = CrackCalculator(tiny_model(), device="cpu")
    replicas = Replicas([water()], calculator, NVE)
    monkeypatch.setattr(device_of(replicas), "_engine", exhausted)
    with caplog.at_level("INFO", logger="crack_md"):
        replicas.run(3)
    assert "nothing left" in caplog.text
    assert (replicas.state.step_count, device_of(replicas).n_refused) == (3, 1)


def test_the_host_moves_what_does_not_fit() -> None:
    slabs = [oxygen_slab(seed=i) for i in range(2)]
    for atoms_per_batch in (13, 26):
        calculator = CrackCalculator(
            tiny_model(), device="cpu", atoms_per_batch=atoms_per_batch
        )
        replicas = Replicas(slabs, calculator, NVE)
        replicas.run(12)
        device = device_of(replicas)
        assert (device._kept is None) == (atoms_per_batch == 13)
        assert device.n_refused == 0


@pytest.mark.parametrize(
    "changes", [{"skin": 0.0}, {"model": [tiny_model(), tiny_model(seed=1)]}]
)
def test_the_host_moves_committees_and_what_has_no_skin(
    changes: dict[str, Any],
) -> None:
    arguments = {"model": tiny_model(), "device": "cpu", **changes}
    replicas = Replicas([water()], CrackCalculator(**arguments), NVE)
    assert replicas._dynamics is replicas._host


def test_a_calculator_that_answers_otherwise_is_asked() -> None:
    class Pushed(CrackCalculator):
        def calculate_many(self, *arguments: Any, **options: Any) -> Any:
            found = super().calculate_many(*arguments, **options)
            return [{**one, "forces": one["forces"] + 1.0} for one in found]

    replicas = Replicas([water()], Pushed(tiny_model(), device="cpu"), NVE)
    assert replicas._dynamics is replicas._host


# ------------------------------------------------------------------------ the waits


@pytest.mark.parametrize("dynamics", [NVE, WARM])
def test_the_host_waits_once_in_a_stretch(
    dynamics: Langevin, monkeypatch: pytest.MonkeyPatch
) -> None:
    calculator = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    dynamics = replace(dynamics, timestep_fs=0.1)  # candidates last
    replicas = as_on_gpu(Replicas(three(), calculator, dynamics), monkeypatch)
    replicas.run(STRETCH)
    with waits() as found:
        replicas.run(2 * STRETCH)
    noise = [] if dynamics.friction_per_ps == 0 else ["aten::lift_fresh"]
    assert found == 2 * [*noise, "cpu", "numpy"]
    assert device_of(replicas).n_refused == 0
