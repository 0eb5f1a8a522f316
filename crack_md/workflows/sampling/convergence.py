"""Convergence of chains: split R-hat, effective sample size, block errors.

R-hat compares the spread between chains with the spread within them; it is near one
where the chains agree. The effective sample size is the number of independent values
that would give a mean as sure as the correlated ones do.

    split R-hat        Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), 11.4
    rank-normalised    Vehtari et al., Bayesian Analysis 16, 667 (2021), sections 3, 4
    where ρ is cut     Geyer, Statistical Science 7, 473 (1992), section 3.3
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

ChainValues = Float[NDArray[np.float64], "chain draw"]
Halves = Float[NDArray[np.float64], "half half_draw"]


def split_r_hat(chains: ChainValues) -> float:
    """Return the rank-normalised split R-hat, the larger of bulk and folded one.

    Ranks make it work for heavy tails; folding at the median makes it see chains that
    differ in width alone.
    """
    halves = _split(chains)
    if halves.shape[1] < 2 or np.ptp(halves) == 0.0:
        return float("nan")
    folded = np.abs(halves - np.median(halves))
    return max(_r_hat(_normal_scores(halves)), _r_hat(_normal_scores(folded)))


def effective_sample_size(chains: ChainValues) -> float:
    """Return m n / (1 + 2 Σ ρ_t) of the rank-normalised values of all chains.

    ρ_t = 1 − (W − mean of the chains' autocovariances at t) / var⁺, with the variance
    W within and var⁺ over the split chains, so that chains that disagree count for
    little. Geyer's initial monotone sequence ends the sum: pairs ρ_2t + ρ_2t+1 are
    positive and fall for every reversible chain, what does not is noise.
    """
    halves = _split(chains)
    m, n = halves.shape
    if n < 4 or np.ptp(halves) == 0.0:
        return float("nan")
    values = _normal_scores(halves)
    covariance = _autocovariance(values)
    within = covariance[:, 0].mean() * n / (n - 1)
    total = within * (n - 1) / n + values.mean(axis=1).var(ddof=1) * (m > 1)
    rho = 1.0 - (within - covariance.mean(axis=0) * n / (n - 1)) / total
    rho[0] = 1.0
    pairs = rho[: 2 * (n // 2)].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0.0)
    kept = np.minimum.accumulate(pairs[: ends[0] if len(ends) else len(pairs)])
    time = max(2.0 * kept.sum() - 1.0, 1.0 / np.log10(m * n))
    return float(m * n / time)


def block_error(
    values: Float[NDArray[np.float64], " time"], n_blocks: int = 20
) -> float:
    """Return the standard error of a mean from the means of blocks in time.

    Right where blocks are longer than what correlates; see Flyvbjerg and Petersen,
    J. Chem. Phys. 91, 461 (1989).
    """
    n_blocks = min(n_blocks, len(values))
    if n_blocks < 2:
        return float("nan")
    means = [block.mean() for block in np.array_split(values, n_blocks)]
    return float(np.std(means, ddof=1) / np.sqrt(n_blocks))


def _split(chains: ChainValues) -> Halves:
    half = chains.shape[1] // 2
    return np.concatenate([chains[:, :half], chains[:, chains.shape[1] - half :]])


def _normal_scores(chains: ChainValues) -> ChainValues:
    ranks = rankdata(chains, axis=None).reshape(chains.shape)
    return np.asarray(ndtri((ranks - 0.375) / (chains.size + 0.25)))


def _r_hat(chains: ChainValues) -> float:
    n = chains.shape[1]
    within = chains.var(axis=1, ddof=1).mean()
    between = chains.mean(axis=1).var(ddof=1)
    return float(np.sqrt((n - 1) / n + between / within))


def _autocovariance(chains: ChainValues) -> Float[NDArray[np.float64], "chain lag"]:
    n = chains.shape[1]
    centered = chains - chains.mean(axis=1, keepdims=True)
    # zero padding keeps the end of a chain from meeting its start
    spectrum = np.abs(np.fft.rfft(centered, 2 * n, axis=1)) ** 2
    return np.fft.irfft(spectrum, axis=1)[:, :n] / n
