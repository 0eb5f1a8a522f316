"""Which pairs of atoms the relational loss compares: those of the student's graph."""

from typing import NamedTuple

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from crack_md.graph import AtomGraph


class AtomPairs(NamedTuple):
    """Pairs of different atoms that are neighbors."""

    first: Int[Tensor, " pair"]
    second: Int[Tensor, " pair"]

    def keep(self, chosen: Shaped[Tensor, " chosen"]) -> "AtomPairs":
        """Return the chosen pairs, by their numbers or by true and false."""
        return AtomPairs(self.first[chosen], self.second[chosen])


def unique_pairs(graph: AtomGraph) -> AtomPairs:
    """Return every neighboring pair once.

    Periodic images of a pair are merged, and an atom paired with its own image is
    dropped: its relation is the zero vector whatever the model says.
    """
    n = graph.n_atoms
    receiver = torch.arange(n, device=graph.neighbors.device).unsqueeze(1)
    low = torch.minimum(receiver, graph.neighbors)
    high = torch.maximum(receiver, graph.neighbors)
    key = (low * n + high)[graph.mask & (low != high)].unique()
    return AtomPairs(key // n, key % n)


def by_element(pairs: AtomPairs, atomic_numbers: Int[Tensor, " atom"]) -> AtomPairs:
    """Return the pairs, the lighter element first: a direction that atoms agree on."""
    swap = atomic_numbers[pairs.first] > atomic_numbers[pairs.second]
    return AtomPairs(
        torch.where(swap, pairs.second, pairs.first),
        torch.where(swap, pairs.first, pairs.second),
    )


def both_directions(pairs: AtomPairs) -> AtomPairs:
    """Return each pair twice, i → j and j → i."""
    return AtomPairs(
        torch.cat([pairs.first, pairs.second]), torch.cat([pairs.second, pairs.first])
    )
