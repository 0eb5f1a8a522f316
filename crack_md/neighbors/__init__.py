"""Tables of periodic neighbors: the rule a model was trained with, applied to atoms."""

from crack_md.neighbors.pairs import (
    RESOLUTION,
    WIDTH_STEP,
    NeighborRule,
    Pairs,
    SmoothNeighbors,
    StrictNeighbors,
    all_pairs,
    build_graph,
    nearest_pairs,
)

__all__ = [
    "RESOLUTION",
    "WIDTH_STEP",
    "NeighborRule",
    "Pairs",
    "SmoothNeighbors",
    "StrictNeighbors",
    "all_pairs",
    "build_graph",
    "nearest_pairs",
]
