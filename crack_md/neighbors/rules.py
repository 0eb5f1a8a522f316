"""Which pairs of atoms are neighbors: what a model was trained with."""

import math
from dataclasses import dataclass

RESOLUTION = 1e-5
"""Distances closer than this count as equal, in Å."""
STEPS_PER_A = 1e5
"""Steps of `RESOLUTION` in one Å: exact in floating point, which 1e-5 is not."""
WIDTH_STEP = 4
"""Smooth tables are padded to a multiple of this, so their shape seldom changes."""


@dataclass(frozen=True)
class StrictNeighbors:
    """The nearest ``count`` neighbors of every atom inside ``cutoff`` (Å)."""

    count: int = 20
    cutoff: float = 12.0


@dataclass(frozen=True)
class SmoothNeighbors:
    """All neighbors of every atom inside ``cutoff`` (Å)."""

    cutoff: float = 5.0


NeighborRule = StrictNeighbors | SmoothNeighbors


def bucket_of_width(widest: int) -> int:
    """Return the width of a smooth table whose widest row has so many neighbors."""
    return max(1, math.ceil(widest / WIDTH_STEP)) * WIDTH_STEP


def last_step(radius: float) -> int:
    """Return the largest rounded distance, in steps, that is inside `radius` (Å)."""
    return math.floor(radius * STEPS_PER_A + 0.5)
