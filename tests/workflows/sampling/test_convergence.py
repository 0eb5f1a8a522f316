import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import norm, rankdata

from crack_md.workflows.sampling.metrics import (
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


def geyer(chains: np.ndarray) -> float:
    """Return the effective size of chains of normal scores, sum by sum."""
    m, n = chains.shape
    means = chains.mean(axis=1)
    within = np.mean([np.sum((x - x.mean()) ** 2) / (n - 1) for x in chains])
    total = within * (n - 1) / n + np.sum((means - means.mean()) ** 2) / (m - 1)
    rho = [1.0]
    for lag in range(1, n):
        covariances = [
            np.sum((x[: n - lag] - x.mean()) * (x[lag:] - x.mean())) / (n - 1)
            for x in chains
        ]
        rho.append(1.0 - (within - np.mean(covariances)) / total)
    time, last = -1.0, np.inf
    for even in range(0, n - 1, 2):
        pair = rho[even] + rho[even + 1]
        if pair <= 0:
            break
        last = min(last, pair)
        time += 2 * last
    return m * n / max(time, 1 / np.log10(m * n))


@pytest.mark.parametrize("phi", [0.0, 0.8, 0.95, -0.7])
def test_effective_size_is_the_monotone_sum_of_geyer(phi: float):
    chains = autoregressive(phi, chains=3, draws=60, seed=1)
    halves = np.concatenate([chains[:, :30], chains[:, 30:]])
    scores = norm.ppf((rankdata(halves).reshape(6, 30) - 0.375) / (180 + 0.25))
    assert effective_sample_size(chains) == pytest.approx(geyer(scores), rel=1e-9)


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
