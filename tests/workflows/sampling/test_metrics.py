import numpy as np
import pytest
from ase import units
from scipy.stats import norm, vonmises, wasserstein_distance

from crack_md.workflows.sampling.metrics import (
    free_energy,
    free_energy_rmse,
    jensen_shannon,
    wasserstein_1,
)


def between(p: np.ndarray, q: np.ndarray, period: float | None = None) -> float:
    """Return W1 of two samples with equal weights."""
    values = np.concatenate([p, q])
    weights = np.concatenate(
        [np.full(len(p), 1 / len(p)), np.full(len(q), -1 / len(q))]
    )
    order = np.argsort(values, kind="stable")
    return wasserstein_1(values[order], weights[order], period=period)


def quantiles(n: int = 20_000) -> np.ndarray:
    return (np.arange(n) + 0.5) / n


def test_shifted_gaussians_are_their_shift_apart():
    p = norm.ppf(quantiles())
    assert between(p, p + 0.37) == pytest.approx(0.37, rel=1e-9)


def test_gaussians_of_unlike_width():
    # W1 = |σ − σ'| E|z| = |σ − σ'| √(2/π)
    p = norm.ppf(quantiles())
    assert between(p, 1.5 * p) == pytest.approx(0.5 * np.sqrt(2 / np.pi), rel=1e-4)


def test_agrees_with_scipy_on_a_line():
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=101), rng.gamma(2.0, size=57)
    assert between(p, q) == pytest.approx(wasserstein_distance(p, q), rel=1e-12)


def test_points_beside_the_seam_are_near_on_the_circle():
    assert between(np.array([179.0]), np.array([-179.0]), 360.0) == pytest.approx(2.0)
    assert between(np.array([179.0]), np.array([-179.0])) == pytest.approx(358.0)


def test_a_turned_von_mises_is_its_turn_apart():
    p = np.degrees(vonmises.ppf(quantiles(1000), kappa=40.0))
    turned = (p + 100.0 + 180.0) % 360.0 - 180.0
    assert between(p, turned, 360.0) == pytest.approx(100.0, rel=2e-3)


def test_a_wide_von_mises_sends_its_back_the_other_way():
    p = np.degrees(vonmises.ppf(quantiles(1000), kappa=1.0))
    turned = (p + 120.0 + 180.0) % 360.0 - 180.0
    x = np.linspace(-np.pi, np.pi, 36_001)
    F = vonmises.cdf(x, kappa=1.0)
    G = vonmises.cdf(x, kappa=1.0, loc=np.radians(120.0))
    ways = [np.trapezoid(np.abs(F - G - a), x) for a in np.linspace(-1, 1, 2001)]
    assert between(p, turned, 360.0) == pytest.approx(np.degrees(min(ways)), rel=5e-3)
    assert between(p, turned, 360.0) < 110.0


def test_the_circle_has_no_preferred_origin():
    rng = np.random.default_rng(1)
    p, q = rng.uniform(-180, 180, 40), np.degrees(rng.vonmises(0.3, 2.0, 60))
    far = between(p, q, 360.0)
    for turn in (33.0, 121.0, -77.0):
        turned = [(x + turn + 180.0) % 360.0 - 180.0 for x in (p, q)]
        assert between(*turned, 360.0) == pytest.approx(far, rel=1e-9)
    assert far <= between(p, q)


def test_uniform_against_a_point_on_the_circle():
    # every point of the circle is 90° away on average
    uniform = 360.0 * quantiles() - 180.0
    assert between(uniform, np.zeros(7), 360.0) == pytest.approx(90.0, rel=1e-6)


def test_jensen_shannon_runs_from_zero_to_one_bit():
    p = np.array([3.0, 1.0, 0.0])
    assert jensen_shannon(p, 5 * p) == 0.0
    assert jensen_shannon(p, np.array([0.0, 0.0, 2.0])) == pytest.approx(1.0)
    # ½ (3/4 log₂ 6/5 + 1/4 log₂ 2/3) + ½ (1/2 log₂ 4/5 + 1/2 log₂ 4/3)
    half = jensen_shannon(np.array([3.0, 1.0]), np.array([1.0, 1.0]))
    by_hand = 0.75 * np.log2(6 / 5) + 0.25 * np.log2(2 / 3)
    by_hand += 0.5 * np.log2(4 / 5) + 0.5 * np.log2(4 / 3)
    assert half == pytest.approx(by_hand / 2, rel=1e-12)


def test_jensen_shannon_of_gaussians_is_that_of_their_integral():
    edges = np.linspace(-8, 9, 2001)
    p, q = (np.diff(norm.cdf(edges, loc=m)) for m in (0.0, 1.0))
    x = np.linspace(-8, 9, 200_001)
    f, g = norm.pdf(x), norm.pdf(x, loc=1.0)
    m = 0.5 * (f + g)
    exact = 0.5 * np.trapezoid(f * np.log2(f / m) + g * np.log2(g / m), x)
    assert jensen_shannon(p, q) == pytest.approx(exact, rel=1e-4)


def test_free_energy_of_a_known_well():
    # p ∝ exp(−V/kT) gives V back
    V = 0.1 * (1 - np.cos(np.radians(np.arange(-175, 180, 10))))
    kT = units.kB * 500
    F = free_energy(1e9 * np.exp(-V / kT), 500.0)
    assert np.allclose(F, V - V.min(), atol=1e-6)
    assert np.isfinite(free_energy(np.array([0.0, 10.0]), 500.0)).all()


def test_rmse_of_free_energies_does_not_see_their_zero():
    p = np.array([100.0, 50.0, 25.0, 50.0])
    assert free_energy_rmse(1e6 * p, 3e6 * p, 500.0) == pytest.approx(0.0, abs=1e-8)
    # bins of a factor e apart by turns: ±½ kT about the mean
    q = p * np.exp([0.5, -0.5, 0.5, -0.5])
    kT = units.kB * 500
    assert free_energy_rmse(1e9 * p, 1e9 * q, 500.0) == pytest.approx(kT / 2, rel=1e-6)


def test_a_well_of_one_alone_counts_and_a_bin_that_both_lack_does_not():
    p = np.array([1e6, 1e6, 0.0, 0.0])
    assert free_energy_rmse(p, np.array([1e6, 1e6, 0.0, 1.0]), 500.0) < 1e-6
    assert free_energy_rmse(p, np.array([1e6, 1e6, 1e6, 0.0]), 500.0) > 0.1
