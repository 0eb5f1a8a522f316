"""BAOAB has exact moments at every time step, in closed form."""

import numpy as np
import pytest
from ase import units
from scipy.linalg import solve_discrete_lyapunov

from crack_md.calculators import Langevin
from crack_md.calculators.replicas.langevin import (
    NoiseSource,
    coefficients,
    drift_and_mix,
    generator,
    kick,
    maxwell_velocities,
)
from crack_md.errors import ConfigError

MASS = 16.0
TEMPERATURE_K = 400.0
HEAT = units.kB * TEMPERATURE_K


def step_of(omega_dt: float, k: float) -> float:
    return omega_dt / np.sqrt(k / MASS) / units.fs


def step_matrix(
    k: float, friction_per_ps: float, dt_fs: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return A and b of a harmonic step, (x, v) ← A (x, v) + b ξ."""
    step = coefficients(
        np.full((1, 1), TEMPERATURE_K),
        np.full((1, 1), friction_per_ps),
        np.full((1, 1), 1 / MASS),
        timestep_fs=dt_fs,
    )
    # three axes: start displaced, start moving, start at rest and be pushed
    x, v = np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 0.0]])
    noise = np.array([[0.0, 0.0, 1.0]])
    v = kick(v, -k * x, step)
    x, v = drift_and_mix(x, v, noise, step)
    v = kick(v, -k * x, step)
    result = np.vstack([x, v])
    return result[:, :2], result[:, 2:]


@pytest.mark.parametrize("omega_dt", [0.1, 0.8, 1.5])
@pytest.mark.parametrize("friction_per_ps", [0.5, 20.0, 2000.0])
def test_moments_of_a_harmonic_oscillator_are_those_of_baoab(
    omega_dt: float, friction_per_ps: float
) -> None:
    k = 10.0
    a, b = step_matrix(k, friction_per_ps, step_of(omega_dt, k))
    covariance = solve_discrete_lyapunov(a, b @ b.T)
    assert covariance[0, 0] == pytest.approx(HEAT / k, rel=1e-9)
    expected = HEAT / MASS * (1 - omega_dt**2 / 4)
    assert covariance[1, 1] == pytest.approx(expected, rel=1e-9)
    assert covariance[0, 1] == pytest.approx(0, abs=1e-9)


def test_no_friction_is_velocity_verlet() -> None:
    k, omega_dt = 10.0, 0.8
    a, b = step_matrix(k, 0.0, step_of(omega_dt, k))
    assert np.trace(a) == pytest.approx(2 - omega_dt**2)
    assert np.linalg.det(a) == pytest.approx(1)
    assert (b == 0).all()


def test_noise_depends_on_seed_step_and_stream_alone() -> None:
    def numbers(seed: int, step: int, stream: str) -> np.ndarray:
        return generator(seed, step, stream).standard_normal(200)  # type: ignore[arg-type]

    again = numbers(3, 7, "step")
    np.testing.assert_array_equal(numbers(3, 7, "step"), again)
    others = [numbers(4, 7, "step"), numbers(3, 8, "step"), numbers(3, 7, "velocities")]
    for other in others:
        assert abs(np.corrcoef(again, other)[0, 1]) < 4 / np.sqrt(200)
        assert not np.isin(other, again).any()


def test_velocities_are_maxwellian() -> None:
    inverse = np.repeat([[1 / MASS], [0.0]], 20_000, axis=0)
    velocities = maxwell_velocities(TEMPERATURE_K, inverse, generator(0, 0, "step"))
    moving = velocities[:20_000]
    assert moving.var() == pytest.approx(HEAT / MASS, rel=3 * np.sqrt(2 / 60_000))
    assert (velocities[20_000:] == 0).all()


@pytest.mark.parametrize("timestep_fs", [0.0, -1.0, np.nan, np.inf])
def test_time_goes_forward(timestep_fs: float) -> None:
    with pytest.raises(ConfigError, match="timestep_fs is"):
        Langevin(300.0, timestep_fs=timestep_fs)


def test_a_source_of_noise_gives_what_generators_do() -> None:
    source, found = NoiseSource(), np.zeros((5, 3))
    for seed, step in ((0, 1), (7, 3), (1_000_003, 20_000), (0, 1)):
        source.fill(seed, step, found)
        wanted = generator(seed, step, "step").standard_normal((5, 3))
        np.testing.assert_array_equal(found, wanted)
