"""Tables for atoms that are moved on a device and not seen by the host at every step.

The host finds candidates and says how far atoms may move; from then on the device
chooses among them, and tells in one flag whether nothing can be missing. A host that
reads the flag after several steps, and takes them back where it is false, waits for the
device once in so many steps.
"""

import math
from collections.abc import Sequence
from functools import reduce

import ase
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crack_md.graph import AtomGraph
from crack_md.neighbors.candidates import Candidates, Selector, join_candidates
from crack_md.neighbors.search import STEPS_PER_A, SmoothNeighbors, bucket_of_width
from crack_md.neighbors.skin import ROUND_OFF, new_list
from crack_md.neighbors.table import FARTHEST, SHORTEST_DISTANCE

HEADROOM = 1 / 8
"""Of fixed widths: so many more neighbors may come before candidates are found anew."""


class DeviceNeighbors:
    """The graph of some structures, again and again, at positions on a device.

    On a CPU it is that of `build_graph` and `batch_graphs`, bit for bit. On a GPU the
    table is wider, since its width is settled with the candidates: reading what the
    widest row needs would take a wait in every step.

    Args:
        structures: cells, elements and periodic directions, which stay.
        rule: which pairs are neighbors.
        skin: how much farther than needed candidates are sought, in Å.
        dtype: of the edge vectors.
        device: of the graphs.
    """

    def __init__(
        self,
        structures: Sequence[ase.Atoms],
        rule: SmoothNeighbors,
        skin: float,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.rule, self.skin = rule, skin
        self.dtype, self.device = dtype, device
        self.widest = 0
        """Neighbors of the atom that has most, when candidates were found."""
        self.width: int | None = None
        """Of the table, where it is settled."""
        self.most_edges: int | None = None
        """In it, where the width is settled."""
        self.n_builds = 0
        """How often candidates were found."""
        self.fixes_width = device.type == "cuda"
        self._structures = [atoms.copy() for atoms in structures]
        self._ends = np.cumsum([len(atoms) for atoms in structures])
        self._found_at: Float[np.ndarray, "atom 3"] | None = None

    def will_last(
        self, positions: Float[np.ndarray, "atom 3"], distance_A: float
    ) -> bool:
        """Return whether candidates suffice for atoms that move on by so much, in Å."""
        if self._found_at is None:
            return False
        moved = np.linalg.norm(positions - self._found_at, axis=1).max()
        return bool(2 * (moved + distance_A) < self.skin - ROUND_OFF)

    def renew(self, positions: Float[np.ndarray, "atom 3"]) -> None:
        """Find candidates around positions in Å."""
        lists = []
        with torch.inference_mode(mode=False):
            for atoms, end in zip(self._structures, self._ends, strict=True):
                atoms.positions = positions[end - len(atoms) : end]
                one = new_list(
                    atoms, self.rule, self.skin, dtype=self.dtype, device=self.device
                )
                lists.append(one)
            candidates = join_candidates([one.candidates for one in lists])
            self._moves = _widened([one.move for one in lists], candidates)
            self._selector = Selector(self.rule, candidates, self.dtype)
            owners = [
                torch.full_like(one.constant["batch"], place)
                for place, one in enumerate(lists)
            ]
            self._constant = {
                name: torch.cat([one.constant[name] for one in lists])
                for name in ("atomic_numbers", "cell", "pbc")
            } | {"batch": torch.cat(owners)}
            self._origin = torch.tensor(positions, device=self.device)
        self.n_builds += 1
        self._found_at = positions.copy()
        table = self._selector(self._origin.T.contiguous(), self._moves)
        self.widest = int(table.mask.sum(dim=1).max())
        if self.fixes_width:
            width = bucket_of_width(round(self.widest * (1 + HEADROOM)) + 1)
            self.width = max(width, self.width or 0)
            assert table.n_edges is not None, "no width was given"
            most = math.ceil(table.n_edges * (1 + HEADROOM))
            self.most_edges = max(most, self.most_edges or 0)

    def __call__(
        self, positions: Float[Tensor, "atom 3"]
    ) -> tuple[AtomGraph, Bool[Tensor, ""]]:
        """Return the graph, and whether it is certain to be the right one.

        It is not where atoms have moved too far for the candidates, a row of the table
        is full or all rows together are, two atoms are on top of each other, or a
        position is not finite.

        Args:
            positions: of all structures in Å, in float64, on the device.
        """
        axes = positions.T.contiguous()
        table = self._selector(axes, self._moves, width=self.width)
        moved = (positions - self._origin).square().sum(dim=1).amax().sqrt()
        shortest = round(SHORTEST_DISTANCE * STEPS_PER_A)
        proofs = [
            2 * moved < self.skin - ROUND_OFF,
            (table.first >= shortest).all(),
            (positions.abs() < FARTHEST).all(),
        ]
        if self.width is not None and self.most_edges is not None:
            proofs.append((table.last >= self._selector.beyond).all())
            proofs.append(table.mask.sum() <= self.most_edges)
        graph = AtomGraph(
            positions=positions,
            neighbors=table.neighbors,
            cell_shift=table.cell_shift,
            mask=table.mask,
            most_edges=self.most_edges or table.n_edges,
            **self._constant,
        )
        return graph, reduce(torch.logical_and, proofs)


def _widened(
    moves: Sequence[Float[Tensor, "3 _ _"]], candidates: Candidates
) -> Float[Tensor, "3 atom candidate"]:
    """Return the translations of all candidates; empty slots are infinitely far."""
    width = candidates.sender.shape[1]
    return torch.cat(
        [
            torch.nn.functional.pad(one, (0, width - one.shape[2]), value=torch.inf)
            for one in moves
        ],
        dim=1,
    )
