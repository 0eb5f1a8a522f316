"""What replicas sample: exact moments, the right orders, the distributions of ASE."""

import ase
import numpy as np
import pytest
from ase import units
from ase.md.langevin import Langevin as AseLangevin
from ase.md.verlet import VelocityVerlet

from crack_md.calculators import Langevin, Replicas
from tests.calculators.potentials import Trap, TrapCalculator

MASS = 16.0
TEMPERATURE_K = 400.0
HEAT = units.kB * TEMPERATURE_K


def atoms_at_origin(n_atoms: int) -> ase.Atoms:
    return ase.Atoms("O" * n_atoms, np.zeros((n_atoms, 3)), masses=[MASS] * n_atoms)


def test_sampled_moments_are_the_exact_ones() -> None:
    """3σ, with σ from the spread of independent replicas: correlation is in it."""
    k, omega_dt, n_replicas, n_atoms = 10.0, 1.0, 20, 100
    replicas = Replicas(
        [atoms_at_origin(n_atoms)] * n_replicas,
        Trap([n_atoms] * n_replicas, k=k),
        Langevin(TEMPERATURE_K, 40.0, omega_dt / np.sqrt(k / MASS) / units.fs),
        seeds=11,
    )
    replicas.run(100)
    squares, temperatures = [], []
    for _ in range(150):
        replicas.run(4)
        positions = replicas.state.positions.reshape(n_replicas, -1)
        squares.append((positions**2).mean(axis=1))
        temperatures.append(replicas.temperatures)
    for found, exact in (
        (np.mean(squares, axis=0), HEAT / k),
        (np.mean(temperatures, axis=0), TEMPERATURE_K * (1 - omega_dt**2 / 4)),
    ):
        error = found.std(ddof=1) / np.sqrt(n_replicas)
        assert error < 0.005 * exact
        assert abs(found.mean() - exact) < 3 * error


def test_free_particles_diffuse_as_their_velocities_say() -> None:
    n_atoms, n_steps, dt_fs, friction = 3000, 60, 2.0, 25.0
    replicas = Replicas(
        [atoms_at_origin(n_atoms)],
        Trap([n_atoms], k=0.0),
        Langevin(TEMPERATURE_K, friction, dt_fs),
    )
    replicas.run(n_steps)
    # x_N = Δt (v_0/2 + v_1 + … + v_N/2), and ⟨v_i v_j⟩ = kT/m c^|i−j|
    weights = np.ones(n_steps + 1)
    weights[[0, -1]] = 0.5
    lags = np.abs(np.subtract.outer(np.arange(n_steps + 1), np.arange(n_steps + 1)))
    c = np.exp(-friction * dt_fs / 1000)
    exact = (dt_fs * units.fs) ** 2 * HEAT / MASS * (weights @ c**lags @ weights)
    error = np.sqrt(2 / (3 * n_atoms))
    assert replicas.state.positions.var() == pytest.approx(exact, rel=3 * error)
    assert replicas.temperatures[0] == pytest.approx(TEMPERATURE_K, rel=3 * error)
    # far from the ballistic limit, or the test would know nothing of friction
    assert exact < 0.6 * HEAT / MASS * (n_steps * dt_fs * units.fs) ** 2


def test_without_bath_particles_fly_straight() -> None:
    replicas = Replicas(
        [atoms_at_origin(10)], Trap([10], k=0.0), Langevin(TEMPERATURE_K, 0.0, 2.0)
    )
    velocities = replicas.state.velocities
    replicas.run(50)
    np.testing.assert_array_equal(replicas.state.velocities, velocities)
    expected = velocities * 100 * units.fs
    np.testing.assert_allclose(replicas.state.positions, expected, rtol=1e-12)


def moving_atoms() -> ase.Atoms:
    """Return some atoms away from the centre of an anharmonic trap."""
    random = np.random.default_rng(5)
    atoms = atoms_at_origin(4)
    atoms.positions = random.normal(size=(4, 3))
    atoms.set_velocities(0.1 * random.normal(size=(4, 3)))
    return atoms


def test_without_bath_steps_are_those_of_ase() -> None:
    atoms = moving_atoms()
    atoms.calc = TrapCalculator(k=2.0, q=1.0)
    replicas = Replicas(
        [atoms], atoms.calc, Langevin(0.0, 0.0, 1.0), keep_velocities=True
    )
    VelocityVerlet(atoms, 1.0 * units.fs).run(200)
    replicas.run(200)
    (found,) = replicas.structures()
    np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-10)
    np.testing.assert_allclose(
        found.get_velocities(), atoms.get_velocities(), atol=1e-10
    )
    np.testing.assert_allclose(found.get_forces(), atoms.get_forces(), atol=1e-10)
    energy = atoms.get_potential_energy()
    assert found.get_potential_energy() == pytest.approx(energy, abs=1e-10)


def test_energy_is_conserved_to_second_order() -> None:
    def largest_error(dt_fs: float) -> float:
        atoms = moving_atoms()
        replicas = Replicas(
            [atoms],
            Trap([4], k=2.0, q=1.0),
            Langevin(0.0, 0.0, dt_fs),
            keep_velocities=True,
        )
        energies = []
        for _ in range(round(500 / dt_fs)):
            energies.append((replicas.kinetic_energies + replicas.state.energies)[0])
            replicas.run(1)
        return float(np.ptp(energies))

    errors = [largest_error(dt_fs) for dt_fs in (1.0, 0.5, 0.25)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)


def test_the_distribution_is_that_of_ases_langevin() -> None:
    """Energies of 300 independent atoms in an anharmonic trap, against quadrature too.

    σ from the spread over atoms, each averaged over time: they are independent.
    """
    n_atoms, k, q, dt_fs = 300, 1.0, 20.0, 2.0
    trap = Trap([n_atoms], k=k, q=q)
    mean, variance = trap.moments(TEMPERATURE_K)
    atoms = atoms_at_origin(n_atoms)
    atoms.calc = TrapCalculator(k=k, q=q)
    replicas = Replicas([atoms], atoms.calc, Langevin(TEMPERATURE_K, 20.0, dt_fs))
    reference = AseLangevin(
        atoms,
        dt_fs * units.fs,
        temperature_K=TEMPERATURE_K,
        friction=0.02 / units.fs,
        fixcm=False,
        rng=np.random.default_rng(1),
    )
    found: dict[str, list[np.ndarray]] = {"ours": [], "ase": []}
    for step in range(420):
        replicas.run(6)
        reference.run(6)
        if step >= 20:
            found["ours"].append(trap.atom_energies(replicas.state.positions))
            found["ase"].append(trap.atom_energies(atoms.positions))
    moments = {}
    for name, energies in found.items():
        for moment, exact, values in (
            ("mean", mean, np.array(energies)),
            ("variance", variance, (np.array(energies) - mean) ** 2),
        ):
            per_atom = values.mean(axis=0)
            error = per_atom.std(ddof=1) / np.sqrt(n_atoms)
            assert error < 0.03 * exact
            assert abs(per_atom.mean() - exact) < 3 * error, (name, moment)
            moments[name, moment] = per_atom.mean(), error
    for moment in ("mean", "variance"):
        (ours, error), (ases, other) = moments["ours", moment], moments["ase", moment]
        assert abs(ours - ases) < 3 * np.hypot(error, other)
