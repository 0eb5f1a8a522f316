"""Rows of several pools, laid out in padded tables so that one product serves all."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Blocks(NamedTuple):
    """Where each row goes when rows are laid out as ``[block, slot]`` with padding."""

    block: Int[Tensor, " row"]
    slot: Int[Tensor, " row"]
    valid: Bool[Tensor, "block slot"]

    def pad(
        self, rows: Float[Tensor, "row channel"]
    ) -> Float[Tensor, "block slot channel"]:
        """Return the rows in their slots, zero elsewhere."""
        if len(self.valid) == 1:  # a single block keeps its order
            return rows.unsqueeze(0)
        padded = rows.new_zeros(*self.valid.shape, rows.shape[-1])
        return padded.index_put((self.block, self.slot), rows)

    def unpad(self, padded: Float[Tensor, "block slot"]) -> Float[Tensor, " row"]:
        """Return the values of the slots that hold a row."""
        return padded[self.block, self.slot]


def blocks_of(block: Int[Tensor, " row"], n_blocks: int) -> Blocks:
    """Return the padded layout of rows, in any order, of so many blocks."""
    order = block.argsort(stable=True)
    counts = block.bincount(minlength=n_blocks)
    first = counts.cumsum(dim=0) - counts
    places = torch.arange(len(block), device=block.device)
    slot = torch.empty_like(block)
    slot[order] = places - first[block[order]]
    width = int(counts.max()) if n_blocks else 0
    slots = torch.arange(width, device=block.device)
    return Blocks(block, slot, slots < counts.unsqueeze(1))


class AlikeBlocks(NamedTuple):
    """Blocks of alike size: their rows, their candidates, and the layout of both."""

    rows: Int[Tensor, " row"]
    candidates: Int[Tensor, " candidate"]
    row_layout: Blocks
    candidate_layout: Blocks

    def slots_of(self, chosen: Int[Tensor, " all_rows"]) -> Int[Tensor, "block slot"]:
        """Return the slot of one candidate per row, or −1, in the layout of rows.

        Args:
            chosen: A candidate of every row, these and others, counted through all
                candidates; −1 for none.
        """
        here = chosen[self.rows]
        n_candidates = int(torch.cat([self.candidates, here]).max()) + 1
        slot = here.new_full((n_candidates,), -1)
        slot[self.candidates] = self.candidate_layout.slot
        laid_out = here.new_full(self.row_layout.valid.shape, -1)
        laid_out[self.row_layout.block, self.row_layout.slot] = torch.where(
            here < 0, -1, slot[here]
        )
        return laid_out


def alike_blocks(
    block: Int[Tensor, " row"],
    candidate_block: Int[Tensor, " candidate"],
    *,
    most_rows: int,
) -> Iterator[AlikeBlocks]:
    """Yield the blocks that have rows, those of a size within a factor two together.

    Padding then costs at most that factor, however unequal the blocks are.

    Args:
        block: The block of every row.
        candidate_block: The block of every candidate.
        most_rows: How many candidates may be laid out at a time, but for those of a
            single block.
    """
    if not len(block):
        return
    n_blocks = int(torch.cat([block, candidate_block]).max()) + 1
    sizes = candidate_block.bincount(minlength=n_blocks)
    octave = sizes.clamp_min(1).log2().ceil().long()
    octave[block.bincount(minlength=n_blocks) == 0] = -1
    for one in range(int(octave.max()) + 1):
        for group in (
            (octave == one).nonzero().squeeze(-1).split(max(1, most_rows >> one))
        ):
            if len(group):
                yield _laid_out(group, block, candidate_block, n_blocks)


def _laid_out(
    group: Tensor, block: Tensor, candidate_block: Tensor, n_blocks: int
) -> AlikeBlocks:
    number = group.new_full((n_blocks,), -1)  # of these blocks among themselves
    number[group] = torch.arange(len(group), device=group.device)
    rows, candidates = (
        (number[index] >= 0).nonzero().squeeze(-1) for index in (block, candidate_block)
    )
    return AlikeBlocks(
        rows,
        candidates,
        blocks_of(number[block[rows]], len(group)),
        blocks_of(number[candidate_block[candidates]], len(group)),
    )
