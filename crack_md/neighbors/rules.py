"""Which pairs of atoms are neighbors: what a model was trained with."""

from dataclasses import dataclass

RESOLUTION = 1e-5
"""Distances closer than this count as equal, in Å."""
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
