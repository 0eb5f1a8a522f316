import numpy as np
import pytest
from scipy.signal import lfilter

from crack_md.workflows.sampling.convergence import (
    block_error,
    effective_sample_size,
    split_r_hat,
)


def autoregressive(phi: float, chains: int, draws: int, seed: int = 0) -> np.ndarray:
    """Return stationary chains x_t = φ x_{t−1} + √(1 − φ²) ξ of unit variance."""
    rng = np.random.default_rng(seed)
    noise = np.sqrt(1 - phi**2) * rng.normal(size=(chains, draws + 200))
    return lfilter([1.0], [1.0, -phi], noise, axis=1)[:, 200:]


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, -0.5])
def test_effective_size_of_autoregressive_chains(phi: float):
    chains = autoregressive(phi, chains=8, draws=20_000)
    exact = chains.size * (1 - phi) / (1 + phi)
    assert effective_sample_size(chains) == pytest.approx(exact, rel=0.1)


def test_effective_size_sees_chains_that_stay_apart():
    chains = autoregressive(0.5, chains=8, draws=2000)
    apart = chains + np.arange(8)[:, None]
    assert effective_sample_size(apart) < 20
    assert effective_sample_size(chains) > 4000


def test_effective_size_survives_any_monotone_map():
    chains = autoregressive(0.5, chains=4, draws=5000)
    assert effective_sample_size(np.exp(3 * chains)) == effective_sample_size(chains)


def test_r_hat_by_hand():
    # four half chains of scores; W = 1, B/n = variance of the means
    rng = np.random.default_rng(0)
    same = rng.normal(size=(4, 50_000))
    assert split_r_hat(same) == pytest.approx(1.0, abs=1e-3)
    # means −d and d in equal parts: √(1 + d² 2m/(2m − 1) / W) before ranks
    d = 0.5
    shifted = same + d * np.array([-1, 1, -1, 1])[:, None]
    exact = np.sqrt(1 + d**2 * 8 / 7)
    assert split_r_hat(shifted) == pytest.approx(exact, rel=0.01)


def test_r_hat_sees_a_drift_within_chains():
    chains = autoregressive(0.3, chains=4, draws=2000)
    assert split_r_hat(chains) < 1.01
    assert split_r_hat(chains + np.linspace(0, 3, 2000)) > 1.2


def test_r_hat_sees_chains_of_unlike_width():
    rng = np.random.default_rng(1)
    chains = rng.normal(size=(4, 5000)) * np.array([1, 1, 1, 3])[:, None]
    assert split_r_hat(chains) > 1.1


def test_what_does_not_move_is_not_converged():
    still = np.ones((4, 100))
    assert np.isnan(split_r_hat(still))
    assert np.isnan(effective_sample_size(still))
    stuck = np.repeat(np.arange(4.0)[:, None], 100, axis=1)
    assert split_r_hat(stuck + 1e-9 * autoregressive(0.0, 4, 100)) > 2


def test_block_error_of_independent_and_of_correlated_values():
    independent = autoregressive(0.0, chains=1, draws=200_000)[0]
    assert block_error(independent, 200) == pytest.approx(200_000**-0.5, rel=0.2)
    correlated = autoregressive(0.9, chains=1, draws=200_000)[0]
    exact = np.sqrt(1.9 / 0.1 / 200_000)
    assert block_error(correlated, 200) == pytest.approx(exact, rel=0.2)
    assert np.isnan(block_error(np.ones(1)))
