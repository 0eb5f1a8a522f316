"""Distances between distributions beside their noise floors; convergence of chains.

R-hat compares the spread between chains with the spread within them; it is near one
where the chains agree. The effective sample size is the number of independent values
that would give a mean as sure as the correlated ones do.

    split R-hat        Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), 11.4
    rank-normalised    Vehtari et al., Bayesian Analysis 16, 667 (2021), sections 3, 4
    where ρ is cut     Geyer, Statistical Science 7, 473 (1992), section 3.3

A distribution over values is a weight per value; p and q share one array of values in
ascending order, and each value has a signed weight: positive ones are p, negative ones
−q. Both sum to one.

The floor of a metric is the distance between two halves of the reference itself. Frames
that follow each other are alike, so that random halves understate it; the reference is
cut into eight blocks in time, and the floor is the mean over all 35 ways to share the
blocks between two sides. The sample has a floor of its own, from groups of chains.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from ase import units
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from crack_md.workflows.sampling.molecule import Kind, Observable, bin_edges

ChainValues = Float[np.ndarray, "chain draw"]
Halves = Float[np.ndarray, "half half_draw"]


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


def block_error(values: Float[np.ndarray, " time"], n_blocks: int = 20) -> float:
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


def _autocovariance(chains: ChainValues) -> Float[np.ndarray, "chain lag"]:
    n = chains.shape[1]
    centered = chains - chains.mean(axis=1, keepdims=True)
    # zero padding keeps the end of a chain from meeting its start
    spectrum = np.abs(np.fft.rfft(centered, 2 * n, axis=1)) ** 2
    return np.fft.irfft(spectrum, axis=1)[:, :n] / n


Array = NDArray[np.float64]

DEPTH_KT = 4.0
"""Free energies are compared up to this height: rarer bins are noise."""


def wasserstein_1(
    values: Float[np.ndarray, " value"],
    signed_weights: Float[np.ndarray, " value"],
    *,
    period: float | None = None,
) -> float:
    """Return the least work to turn p into q: weight times way, in units of the values.

    On a line W₁ = ∫ |F_p − F_q| dx, with F the cumulative distributions. On a circle
    W₁ = min_α ∫ |F_p − F_q − α| dx, and the best α is a median of F_p − F_q (Rabin,
    Delon and Gousseau, J. Math. Imaging Vis. 41, 147 (2011)).

    Args:
        values: ascending.
        signed_weights: weight under p minus weight under q.
        period: length of the circle; None for a line.
    """
    if len(values) == 0:
        return float("nan")
    excess = np.cumsum(signed_weights)
    if period is None:
        return float(np.abs(excess[:-1]) @ np.diff(values))
    ways = np.diff(values, append=values[0] + period)
    return float(np.abs(excess - _weighted_median(excess, ways)) @ ways)


def jensen_shannon(p: Float[np.ndarray, " bin"], q: Float[np.ndarray, " bin"]) -> float:
    """Return JS = ½ KL(p‖m) + ½ KL(q‖m), m = ½(p + q), in bits: 1 is disjoint.

    Args:
        p: counts or probabilities; normalised here.
        q: on the same bins.
    """
    p, q = p / p.sum(), q / q.sum()
    middle = 0.5 * (p + q)
    return 0.5 * (_relative_entropy(p, middle) + _relative_entropy(q, middle))


def free_energy(
    counts: Float[np.ndarray, "*set bin"], temperature_K: float
) -> Float[np.ndarray, "*set bin"]:
    """Return F = −kT ln p in eV above its minimum, for each row of counts.

    Half a count is added to every bin, so that F of an empty bin is high, not infinite.
    """
    p = (counts + 0.5) / (counts + 0.5).sum(axis=-1, keepdims=True)
    F = -units.kB * temperature_K * np.log(p)
    return F - F.min(axis=-1, keepdims=True)


def free_energy_rmse(
    p: Float[np.ndarray, " bin"], q: Float[np.ndarray, " bin"], temperature_K: float
) -> float:
    """Return the root mean square difference in eV of F = −kT ln p, where it matters.

    Bins count where either free energy is within 4 kT of its minimum: a well that only
    one of them has is seen. The zero of F is arbitrary, so the mean difference over
    these bins is taken off.

    Args:
        p: counts.
        q: counts on the same bins.
        temperature_K: of both.
    """
    F, G = free_energy(np.stack([p, q]), temperature_K)
    seen = np.minimum(F, G) <= DEPTH_KT * units.kB * temperature_K
    return float(np.std((F - G)[seen]))


def _relative_entropy(p: Array, q: Array) -> float:
    inside = p > 0
    return float(np.sum(p[inside] * np.log2(p[inside] / q[inside])))


def _weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    place = np.searchsorted(reached, 0.5 * reached[-1])
    return float(values[order[min(place, len(values) - 1)]])


N_GROUPS = 8
Quantity = Literal["W1", "JS", "F"]
QUANTITIES: dict[Kind, tuple[Quantity, ...]] = {
    "energy": ("W1", "JS"),
    "distance": ("W1", "JS"),
    "torsion": ("W1", "JS", "F"),
}
UNITS: dict[tuple[Kind, Quantity], tuple[str, float]] = {
    ("energy", "W1"): ("meV", 1e3),
    ("distance", "W1"): ("Å", 1.0),
    ("torsion", "W1"): ("°", 1.0),
    ("torsion", "F"): ("meV", 1e3),
}
"""Unit of a metric in records, and the factor to it; Jensen–Shannon is in bits."""

Groups = Int[np.ndarray, " frame"]


@dataclass(frozen=True)
class Metric:
    """One distance between reference and sample."""

    observable: str
    kind: Kind
    quantity: Quantity
    unit: str
    value: float
    floor: float
    """The same between halves of the reference."""
    sample_floor: float
    """The same between halves of the sample."""

    @property
    def ratio(self) -> float:
        """Return the distance in units of the floor."""
        return self.value / self.floor if self.floor > 0 else float("inf")


@dataclass(frozen=True)
class Comparison:
    """Two distributions of one observable, and how far they are apart."""

    name: str
    kind: Kind
    edges: Float[np.ndarray, " edge"]
    reference: Float[np.ndarray, "group bin"]
    """Counts, by blocks in time."""
    sample: Float[np.ndarray, "sample_group bin"]
    """Counts, by groups of chains."""
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class Pool:
    """All values of one observable in one set of frames."""

    values: Float[np.ndarray, " value"]
    """Ascending."""
    groups: Int[np.ndarray, " value"]
    counts: Float[np.ndarray, "group bin"]
    """In frames: the members of a frame share its weight."""

    @property
    def sizes(self) -> Float[np.ndarray, " group"]:
        """Return the number of values in every group."""
        return np.bincount(self.groups, minlength=len(self.counts)).astype(float)


def compare(
    observable: Observable,
    *,
    reference_groups: Groups,
    sample_groups: Int[np.ndarray, " sample"],
    temperature_K: float,
) -> Comparison:
    """Return how far the sample is from the reference in one observable.

    Args:
        observable: its values.
        reference_groups: block in time of every frame of the reference.
        sample_groups: group of every frame of the sample, such as its chain.
        temperature_K: of both, for free energies.
    """
    edges = bin_edges(observable)
    reference = _pool(observable.reference, reference_groups, edges)
    sample = _pool(observable.sample, sample_groups, edges)
    apart = _between(reference, sample, observable.kind, temperature_K)
    floor = _floors(reference, observable.kind, temperature_K)
    sample_floor = _floors(sample, observable.kind, temperature_K)
    metrics = []
    for quantity in QUANTITIES[observable.kind]:
        unit, factor = UNITS.get((observable.kind, quantity), ("bit", 1.0))
        metrics.append(
            Metric(
                observable.name,
                observable.kind,
                quantity,
                unit,
                factor * apart[quantity],
                factor * floor[quantity],
                factor * sample_floor[quantity],
            )
        )
    return Comparison(
        observable.name,
        observable.kind,
        edges,
        reference.counts,
        sample.counts,
        tuple(metrics),
    )


def time_blocks(n_frames: int, n_blocks: int = N_GROUPS) -> Groups:
    """Return the block of every frame: equal parts, in order."""
    return np.arange(n_frames) * n_blocks // n_frames


def balanced_splits(n_groups: int) -> Float[np.ndarray, "split group"]:
    """Return all ways to share groups between two sides of equal number, as ±1."""
    signs = []
    for others in combinations(range(1, n_groups), n_groups // 2 - 1):
        sign = np.full(n_groups, -1.0)
        sign[[0, *others]] = 1.0
        signs.append(sign)
    return np.array(signs)


def _pool(
    values: Float[np.ndarray, "frame member"],
    groups: Groups,
    edges: Float[np.ndarray, " edge"],
) -> Pool:
    members = values.shape[1]
    by_value = np.repeat(groups, members)
    flat = values.ravel()
    bins = np.clip(np.searchsorted(edges, flat, side="right") - 1, 0, len(edges) - 2)
    n_bins, n_groups = len(edges) - 1, int(groups.max()) + 1
    counts = np.bincount(by_value * n_bins + bins, minlength=n_groups * n_bins)
    order = np.argsort(flat, kind="stable")
    return Pool(
        flat[order], by_value[order], counts.reshape(n_groups, n_bins) / members
    )


def _between(
    p: Pool, q: Pool, kind: Kind, temperature_K: float
) -> dict[Quantity, float]:
    values = np.concatenate([p.values, q.values])
    weights = np.concatenate(
        [
            np.full(len(p.values), 1.0 / len(p.values)),
            np.full(len(q.values), -1.0 / len(q.values)),
        ]
    )
    order = np.argsort(values, kind="stable")
    both = p.counts.sum(axis=0), q.counts.sum(axis=0)
    return _distances(values[order], weights[order], *both, kind, temperature_K)


def _floors(pool: Pool, kind: Kind, temperature_K: float) -> dict[Quantity, float]:
    """Return the mean distances between halves of a pool, over all splits."""
    found = []
    for sign in balanced_splits(len(pool.counts)):
        sides = [np.where(sign == side, pool.sizes, 0.0).sum() for side in (1, -1)]
        weights = np.where(sign > 0, 1.0 / sides[0], -1.0 / sides[1])
        p, q = pool.counts[sign > 0].sum(axis=0), pool.counts[sign < 0].sum(axis=0)
        found.append(
            _distances(pool.values, weights[pool.groups], p, q, kind, temperature_K)
        )
    return {
        quantity: float(np.mean([one[quantity] for one in found]))
        for quantity in QUANTITIES[kind]
    }


def _distances(
    values: Float[np.ndarray, " value"],
    weights: Float[np.ndarray, " value"],
    p: Float[np.ndarray, " bin"],
    q: Float[np.ndarray, " bin"],
    kind: Kind,
    temperature_K: float,
) -> dict[Quantity, float]:
    period = 360.0 if kind == "torsion" else None
    found: dict[Quantity, float] = {
        "W1": wasserstein_1(values, weights, period=period),
        "JS": jensen_shannon(p, q),
    }
    if kind == "torsion":
        found["F"] = free_energy_rmse(p, q, temperature_K)
    return found
