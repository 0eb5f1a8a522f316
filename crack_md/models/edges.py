"""What layers know about edges: one table for each forward call, cut into parts.

Edges are rotated so that they point along y; there a convolution is a few dense
products (`so2`), and this is the way there and back.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from crack_md.models.equiformer_config import EquiformerV2Config

CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 4 << 30}
"""Roughly what the work on edges may hold at a time. On a CPU: a few of its caches, so
that weights are read for many edges at once."""


EDGE_COLUMNS = (
    "basis",
    "senders",
    "receivers",
    "sender_numbers",
    "receiver_numbers",
    "rotation",
    "envelope",
    "filled",
)
"""What a table has for every edge, not for every atom."""


class EdgeTable(NamedTuple):
    """What the layers know about the edges; computed once per forward call.

    Edges are the slots of the neighbor table, row by row. The padding is left out
    where that is cheap (`filled`), and takes part, masked, where shapes must not
    depend on data.
    """

    basis: Float[Tensor, "edge basis"]
    """Radial basis of the distances."""
    senders: Int[Tensor, " edge"]
    receivers: Int[Tensor, " edge"]
    sender_numbers: Int[Tensor, " edge"]
    receiver_numbers: Int[Tensor, " edge"]
    rotation: Float[Tensor, "edge reduced coefficient"]
    """Wigner matrices into the edge frames, truncated at mmax, order-major."""
    rotation_back: Float[Tensor, "atom slot_reduced coefficient"]
    """The same matrices as a table."""
    truncation: Float[Tensor, "coefficient 1"]
    """What makes up for the variance of the orders cut away, degree order."""
    envelope: Float[Tensor, " edge"] | None
    """Smooth rule: 1 at short distance, 0 at the cutoff. Strict rule: None."""
    filled: Int[Tensor, " edge"] | None
    """Slots that edges belong to; None if every slot is an edge."""
    mask: Bool[Tensor, "atom slot"]
    first_atom: int = 0
    """The atom of the first row: tables can be cut into parts."""

    @property
    def rows(self) -> slice:
        """Return which atoms the rows belong to."""
        return slice(self.first_atom, self.first_atom + self.mask.shape[0])

    def parts(self, n_rows: int) -> Iterator["EdgeTable"]:
        """Yield tables of at most so many atoms, all of them the same for one part."""
        n_atoms, width = self.mask.shape
        if n_rows >= n_atoms:
            yield self
            return
        sizes = [min(n_rows, n_atoms - first) for first in range(0, n_atoms, n_rows)]
        if self.filled is None:
            cuts = [size * width for size in sizes]
        else:
            ends = torch.tensor(sizes, device=self.filled.device).cumsum(0) * width
            last = torch.searchsorted(self.filled, ends)
            cuts = last.diff(prepend=last.new_zeros(1)).tolist()
        # split, not slices: their gradients would each be as large as the table
        columns = {
            name: getattr(self, name).split(cuts)
            for name in EDGE_COLUMNS
            if getattr(self, name) is not None
        }
        columns["rotation_back"] = self.rotation_back.split(sizes)
        columns["mask"] = self.mask.split(sizes)
        for place, values in enumerate(zip(*columns.values(), strict=True)):
            part = self._replace(**dict(zip(columns, values, strict=True)))
            first = place * n_rows
            if part.filled is not None:
                part = part._replace(filled=part.filled - first * width)
            yield part._replace(first_atom=self.first_atom + first)

    def to_table(
        self, values: Float[Tensor, "edge ..."]
    ) -> Float[Tensor, "atom slot ..."]:
        """Return values of edges as rows of atoms, zero in the padding left out."""
        if self.filled is not None:
            table = values.new_zeros(self.mask.numel(), *values.shape[1:])
            values = table.index_copy(0, self.filled, values)
        return values.unflatten(0, self.mask.shape)

    def to_edges(
        self, table: Shaped[Tensor, "atom slot ..."]
    ) -> Shaped[Tensor, "edge ..."]:
        """Return the values of a table at the edges."""
        flat = table.flatten(0, 1)
        return flat if self.filled is None else flat.index_select(0, self.filled)

    def rotate(
        self, x: Float[Tensor, "atom coefficient channel"]
    ) -> Float[Tensor, "edge reduced both"]:
        """Return senders beside receivers, in the frames of the edges."""
        sender = torch.bmm(self.rotation, x.index_select(0, self.senders))
        if self.filled is None:
            # one atom, many frames: a single product for each row of the table
            receiver = torch.bmm(self.rotation_back, x[self.rows]).view_as(sender)
        else:
            receiver = torch.bmm(self.rotation, x.index_select(0, self.receivers))
        return torch.cat([sender, receiver], dim=-1)

    def rotate_back(
        self, values: Float[Tensor, "edge reduced channel"]
    ) -> Float[Tensor, "row coefficient channel"]:
        """Return the sums over the rows of what is rotated back, in degree order."""
        stacked = self.to_table(values).flatten(1, 2)
        return torch.bmm(self.rotation_back.transpose(1, 2), stacked) * self.truncation

    def rotate_back_vectors(
        self, values: Float[Tensor, "edge 3 channel"]
    ) -> Float[Tensor, "row 3 channel"]:
        """Return the same for l = 1 alone, from its orders 0, +1 and −1."""
        matrices = self.rotation_back.unflatten(1, (self.mask.shape[1], -1))
        top = math.isqrt(self.truncation.shape[0])  # l = 0 … lmax: the rows of order 0
        rows = [1, top, 2 * top - 1]
        vectors = torch.stack([matrices[:, :, row, 1:4] for row in rows], dim=2)
        vectors = vectors.flatten(1, 2)
        stacked = self.to_table(values).flatten(1, 2)
        return torch.bmm(vectors.transpose(1, 2), stacked) * self.truncation[1:4]


def rows_at_once(
    edges: EdgeTable, config: EquiformerV2Config, *, recompute: bool = False
) -> int:
    """Return for how many atoms the work on edges is done at a time.

    What stays in the cache is never fetched again: chunks are as fast as one piece or
    faster, and memory is bounded. With gradients that needs `recompute`.
    """
    n_atoms, width = edges.mask.shape
    whole = torch.is_grad_enabled() and not recompute
    if whole or torch.compiler.is_compiling():
        return n_atoms
    reduced = edges.rotation.shape[1]
    numbers = reduced * (4 * config.sphere_channels + 3 * config.attn_hidden_channels)
    if config.activation == "s2":
        numbers += config.grid_resolution**2 * config.attn_hidden_channels
    row = width * numbers * edges.rotation.dtype.itemsize
    budget = CHUNK_BYTES["cuda" if edges.mask.is_cuda else "cpu"]
    return max(1, budget // row)


def by_parts(
    layer: Callable[[EdgeTable], Tensor], edges: EdgeTable, n_rows: int
) -> Float[Tensor, "atom ..."]:
    """Return what a layer makes of a table, ``n_rows`` atoms at a time.

    Where gradients follow, a part keeps its input alone and is evaluated again on the
    way back: what one part holds at a time is all the memory that edges take.
    """
    if torch.is_grad_enabled() and n_rows < edges.mask.shape[0]:
        layer = partial(
            checkpoint, layer, use_reentrant=False, preserve_rng_state=False
        )
    return torch.cat([layer(part) for part in edges.parts(n_rows)])
