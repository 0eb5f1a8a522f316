import numpy as np
import pytest

from crack_md.workflows.md.summary import fit_line, statistical_inefficiency


def test_a_straight_line_has_its_slope_and_no_error():
    x = np.linspace(0, 3, 50)
    line = fit_line(x, 2.5 * x - 7.0)
    assert line.slope == pytest.approx(2.5, abs=1e-12)
    assert line.error < 1e-12


def test_inefficiency_of_an_autoregression():
    """x_t = a x_{t−1} + noise has g = (1 + a)/(1 − a)."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(100_000)
    series = np.empty_like(noise)
    series[0] = noise[0]
    for t in range(1, len(noise)):
        series[t] = 0.8 * series[t - 1] + noise[t]
    assert statistical_inefficiency(series) == pytest.approx(9.0, rel=0.08)
    assert statistical_inefficiency(noise) == pytest.approx(1.0, abs=0.05)
    assert statistical_inefficiency(np.ones(10)) == 1.0


def test_error_of_the_slope_covers_what_correlated_noise_does():
    rng = np.random.default_rng(1)
    x = np.arange(1000.0)
    slopes, errors = [], []
    for _ in range(200):
        y = np.convolve(rng.standard_normal(1019), np.ones(20), "valid")
        line = fit_line(x, y)
        slopes.append(line.slope)
        errors.append(line.error)
    assert np.mean(errors) == pytest.approx(np.std(slopes), rel=0.25)


def test_two_points_tell_no_error():
    assert np.isnan(fit_line(np.arange(2.0), np.arange(2.0)).slope)
