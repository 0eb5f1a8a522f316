"""Probabilities of ranks from joint draws of the energies.

Energies are drawn jointly many times and ranked each time; ranks are counted.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

RANK_LEVEL = 0.90
DRAWS = 4000
"""Enough for a standard error of 0.008 on a probability."""


@dataclass(frozen=True, eq=False)
class RankStatistics:
    """What many draws say about the order of slabs."""

    p_best: Float[ndarray, " slab"]
    p_top: Float[ndarray, " slab"]
    """Probability of being among the best ``top``."""
    low: Int[ndarray, " slab"]
    """Best rank that is not improbable; 1 is first."""
    high: Int[ndarray, " slab"]
    top: int
    level: float
    shortlist: tuple[int, ...]
    """Slabs to look at to have all of the best ``top`` with probability ``level``."""


def rank_statistics(
    potentials: Float[ndarray, "draw slab"], *, top: int, level: float = RANK_LEVEL
) -> RankStatistics:
    """Return rank probabilities, the highest value of a draw being rank 1.

    Args:
        potentials: joint draws of what ranks the slabs.
        top: how many count as the best.
        level: probability of the intervals of ranks and of the shortlist.
    """
    n_slabs = potentials.shape[1]
    top = min(top, n_slabs)
    order = np.argsort(-potentials, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, n_slabs + 1)[None, :], axis=1)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(ranks, tails, axis=0, method="inverted_cdf")
    p_top = (ranks <= top).mean(axis=0)
    return RankStatistics(
        p_best=(ranks == 1).mean(axis=0),
        p_top=p_top,
        low=low.astype(int),
        high=high.astype(int),
        top=top,
        level=level,
        shortlist=_shortlist(order[:, :top], p_top, level),
    )


def _shortlist(
    best: Int[ndarray, "draw place"], p_top: Float[ndarray, " slab"], level: float
) -> tuple[int, ...]:
    """Return the fewest slabs, likeliest first, that hold all of the best.

    In each draw the list must reach to the least likely of the best.
    """
    likeliest = np.argsort(-p_top, kind="stable")
    position = np.empty_like(likeliest)
    position[likeliest] = np.arange(1, len(likeliest) + 1)
    reach = position[best].max(axis=1)
    length = int(np.quantile(reach, level, method="inverted_cdf"))
    return tuple(int(index) for index in likeliest[:length])
