"""A word to who brings atoms nearer to each other than training ever did."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from ase.data import chemical_symbols
from jaxtyping import Float

from crack_md.graph import AtomGraph, edge_vectors
from crack_md.models.force_field import ForceField
from crack_md.models.shortest_distances import nearness


class NearWatch:
    """Measures how near atoms are, and warns once where that is outside of training.

    Args:
        model: whose training data are meant; without their shortest distances nothing
            is measured.
    """

    def __init__(self, model: ForceField) -> None:
        self.shortest = model.metadata.shortest_distances
        self._table = (
            None
            if self.shortest is None
            else self.shortest.table(model.network.config.num_elements)
        )
        self._has_warned = False

    def distances(
        self, graph: AtomGraph, sizes: Sequence[int]
    ) -> Float[np.ndarray, " structure"] | None:
        """Return the domain distance of every structure, None where nothing is known.

        Args:
            graph: of all structures together.
            sizes: how many atoms each has.
        """
        if self._table is None:
            return None
        if self._table.device != graph.positions.device:
            self._table = self._table.to(graph.positions.device)
        near = nearness(graph, self._table)
        by_atom = near.amax(dim=1).double().cpu().numpy()
        ends = np.cumsum(sizes)
        found = np.maximum.reduceat(by_atom, ends - np.asarray(sizes))
        if not self._has_warned and found.max() > 1:
            self._has_warned = True
            warnings.warn(self._sentence(graph, near, ends), stacklevel=7)
        return found

    def _sentence(
        self, graph: AtomGraph, near: torch.Tensor, ends: Sequence[int] | np.ndarray
    ) -> str:
        receiver, slot = divmod(int(near.argmax()), near.shape[1])
        sender = int(graph.neighbors[receiver, slot])
        length = float(edge_vectors(graph)[receiver, slot].detach().norm())
        place = int(np.searchsorted(ends, receiver, side="right"))
        first_atom = int(ends[place - 1]) if place else 0
        numbers = [int(graph.atomic_numbers[atom]) for atom in (receiver, sender)]
        names = [
            f"{chemical_symbols[number]} (atom {atom - first_atom})"
            for number, atom in zip(numbers, (receiver, sender), strict=True)
        ]
        assert self.shortest is not None
        limit = self.shortest.limit(*numbers)
        pair = (min(numbers), max(numbers))
        known = (
            f"the shortest such distance in training is {limit:.2f} Å"
            if pair in self.shortest.pairs
            else f"training had no such pair; bonds end at {limit:.2f} Å"
        )
        return (
            f"{names[0]} and {names[1]} are {length:.2f} Å apart, and {known}: do not "
            "trust the energy. Further structures are not named; domain_distance in "
            "the results is above 1 there."
        )
