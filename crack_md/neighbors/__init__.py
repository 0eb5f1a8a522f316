"""Tables of periodic neighbors: the rule a model was trained with, applied to atoms.

Three rules exist. `StrictNeighbors` keeps the ``count`` nearest inside a cutoff, as
public EquiformerV2 models do; `SmoothNeighbors` keeps all of them, for models whose
envelope takes every edge to zero at the cutoff. Images of the atom itself count too.
`AllNeighbors` keeps every pair of a molecule, and its table never changes.

Rows are ordered by (distance rounded to 1e-5 Å, sender, shift). Ideal slabs tie at the
cut on every atom, and an unrounded order would flip when the structure is rotated.
"""

from crack_md.neighbors.search import (
    RESOLUTION,
    WIDTH_STEP,
    AllNeighbors,
    NeighborRule,
    Pairs,
    SmoothNeighbors,
    StrictNeighbors,
    all_pairs,
    nearest_pairs,
)
from crack_md.neighbors.skin import NeighborSkin, graph_builder
from crack_md.neighbors.table import build_graph

__all__ = [
    "RESOLUTION",
    "WIDTH_STEP",
    "AllNeighbors",
    "NeighborRule",
    "NeighborSkin",
    "Pairs",
    "SmoothNeighbors",
    "StrictNeighbors",
    "all_pairs",
    "build_graph",
    "graph_builder",
    "nearest_pairs",
]
