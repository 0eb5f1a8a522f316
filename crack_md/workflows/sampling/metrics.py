"""How far two distributions are apart: three distances, each a pure function.

A distribution over values is a weight per value; here p and q share one array of values
in ascending order, and each value has a signed weight: positive ones are p, negative
ones −q. Both sum to one.
"""

import numpy as np
from ase import units
from jaxtyping import Float
from numpy.typing import NDArray

Array = NDArray[np.float64]

DEPTH_KT = 4.0
"""Free energies are compared up to this height: rarer bins are noise."""


def wasserstein_1(
    values: Float[Array, " value"],
    signed_weights: Float[Array, " value"],
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


def jensen_shannon(p: Float[Array, " bin"], q: Float[Array, " bin"]) -> float:
    """Return JS = ½ KL(p‖m) + ½ KL(q‖m), m = ½(p + q), in bits: 1 is disjoint.

    Args:
        p: counts or probabilities; normalised here.
        q: on the same bins.
    """
    p, q = p / p.sum(), q / q.sum()
    middle = 0.5 * (p + q)
    return 0.5 * (_relative_entropy(p, middle) + _relative_entropy(q, middle))


def free_energy(
    counts: Float[Array, "*set bin"], temperature_K: float
) -> Float[Array, "*set bin"]:
    """Return F = −kT ln p in eV above its minimum, for each row of counts.

    Half a count is added to every bin, so that F of an empty bin is high, not infinite.
    """
    p = (counts + 0.5) / (counts + 0.5).sum(axis=-1, keepdims=True)
    F = -units.kB * temperature_K * np.log(p)
    return F - F.min(axis=-1, keepdims=True)


def free_energy_rmse(
    p: Float[Array, " bin"], q: Float[Array, " bin"], temperature_K: float
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
