"""Which pairs of atoms the relational loss compares: those of the student's graph."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crack_md.graph import AtomGraph


class AtomPairs(NamedTuple):
    """Pairs of different atoms that are neighbors, in ascending order of structure."""

    first: Int[Tensor, " pair"]
    second: Int[Tensor, " pair"]

    def keep(self, chosen: Bool[Tensor, " pair"]) -> "AtomPairs":
        """Return the chosen pairs."""
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


def both_directions(pairs: AtomPairs, structure: Int[Tensor, " atom"]) -> AtomPairs:
    """Return each pair twice, i → j and j → i, still ordered by structure."""
    first = torch.cat([pairs.first, pairs.second])
    second = torch.cat([pairs.second, pairs.first])
    order = structure[first].argsort(stable=True)
    return AtomPairs(first[order], second[order])


class Blocks(NamedTuple):
    """Where each row goes when rows are laid out as ``[block, slot]`` with padding."""

    block: Int[Tensor, " row"]
    slot: Int[Tensor, " row"]
    valid: Bool[Tensor, "block slot"]

    def pad(
        self, rows: Float[Tensor, "row channel"]
    ) -> Float[Tensor, "block slot channel"]:
        """Return the rows in their slots, zero elsewhere."""
        padded = rows.new_zeros(*self.valid.shape, rows.shape[-1])
        return padded.index_put((self.block, self.slot), rows)

    def unpad(self, padded: Float[Tensor, "block slot"]) -> Float[Tensor, " row"]:
        """Return the values of the slots that hold a row."""
        return padded[self.block, self.slot]


def blocks_of(block: Int[Tensor, " row"]) -> Blocks:
    """Return the padded layout of rows whose block numbers ascend."""
    _, block, counts = block.unique_consecutive(return_inverse=True, return_counts=True)
    first_row = counts.cumsum(dim=0) - counts
    slot = torch.arange(block.shape[0], device=block.device) - first_row[block]
    width = int(counts.max()) if counts.numel() else 0
    slots = torch.arange(width, device=block.device)
    return Blocks(block, slot, slots < counts.unsqueeze(1))
