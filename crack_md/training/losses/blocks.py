"""Blocks of rows and their chunked log-sum-exp: all with all, in bounded memory."""

from collections.abc import Iterator
from typing import Any, NamedTuple

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


MOST_SCORES = 1 << 24
"""Of one piece; 67 MB in float32."""


def log_sum_exp(
    anchors: Float[Tensor, "block row channel"],
    candidates: Float[Tensor, "block candidate channel"],
    valid: Bool[Tensor, "block candidate"],
    *,
    temperature: float,
    both_signs: bool,
    chunk: int,
    excluded: Int[Tensor, "block row"] | None = None,
) -> Float[Tensor, "block row"]:
    """Return log Σ_m exp(a·c_m/τ), with ``both_signs`` log Σ_m 2 cosh(a·c_m/τ).

    The scores are computed for ``chunk`` rows at a time and computed again for the
    gradient, so that memory is O(chunk · candidates), never rows · candidates, and a
    few times `MOST_SCORES` numbers at most.

    Args:
        anchors: a.
        candidates: c.
        valid: False for the padding among the candidates; it joins no sum.
        temperature: τ.
        both_signs: Sum over c and −c: a pair of atoms and the same pair reversed.
        chunk: Rows of every block per piece; fewer where there are many candidates.
        excluded: One candidate per row that stays out of its sum; −1 for none.
    """
    result: Tensor = _ChunkedLogSumExp.apply(  # type: ignore[no-untyped-call]
        anchors, candidates, valid, temperature, both_signs, chunk, excluded
    )
    return result


class _ChunkedLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        candidates: Tensor,
        valid: Tensor,
        temperature: float,
        both_signs: bool,
        chunk: int,
        excluded: Tensor | None,
    ) -> Tensor:
        columns = (candidates / temperature).transpose(1, 2)
        padding = torch.where(valid, 0.0, -torch.inf).to(anchors.dtype).unsqueeze(1)
        lowest = torch.finfo(anchors.dtype).min
        at_once = MOST_SCORES // max(1, candidates.shape[0] * candidates.shape[1])
        chunk = max(1, min(chunk, at_once))
        pieces = []
        for start in range(0, anchors.shape[1], chunk):
            rows = slice(start, start + chunk)
            scores = anchors[:, rows] @ columns
            hidden = _entries(excluded, rows)
            if both_signs:
                size = scores.abs().add_(padding)
                size[hidden] = -torch.inf
                largest = size.amax(dim=-1, keepdim=True).clamp_min(0)
                # exp(s − top) + exp(−s − top) = exp(|s| − top) · (1 + exp(−2|s|))
                total = size.sub_(largest).exp_()
                total = total.mul_(scores.abs_().mul_(-2).exp_().add_(1)).sum(dim=-1)
            else:
                scores += padding
                scores[hidden] = -torch.inf
                largest = scores.amax(dim=-1, keepdim=True).clamp_min(lowest)
                total = scores.sub_(largest).exp_().sum(dim=-1)
            pieces.append(total.log_() + largest.squeeze(-1))
        result = torch.cat(pieces, dim=1) if pieces else anchors.sum(dim=-1)
        ctx.save_for_backward(anchors, candidates, padding, result, excluded)
        ctx.settings = temperature, both_signs, chunk
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        anchors, candidates, padding, result, excluded = ctx.saved_tensors
        temperature, both_signs, chunk = ctx.settings
        result = result.clamp_min(torch.finfo(result.dtype).min)  # of no candidate: −∞
        needs_anchors, needs_candidates = ctx.needs_input_grad[:2]
        to_anchors = torch.empty_like(anchors) if needs_anchors else None
        to_candidates = torch.zeros_like(candidates) if needs_candidates else None
        columns = (candidates / temperature).transpose(1, 2)
        for start in range(0, anchors.shape[1], chunk):
            rows = slice(start, start + chunk)
            scores = anchors[:, rows] @ columns
            # a row of padding has the log-sum-exp of its block, so this stays finite
            offset = padding - result[:, rows].unsqueeze(2)
            weight = (offset + scores).exp_()
            if both_signs:
                weight -= offset.sub_(scores).exp_()
            weight[_entries(excluded, rows)] = 0
            weight *= (grads[0][:, rows] / temperature).unsqueeze(2)
            if to_anchors is not None:
                to_anchors[:, rows] = weight @ candidates
            if to_candidates is not None:
                to_candidates.baddbmm_(weight.transpose(1, 2), anchors[:, rows])
        return to_anchors, to_candidates, None, None, None, None, None


def _entries(
    excluded: Tensor | None, rows: slice
) -> tuple[Tensor, Tensor, Tensor] | tuple[slice, slice, slice]:
    """Return where the excluded candidates of these rows lie in their scores."""
    if excluded is None:
        return slice(0, 0), slice(0, 0), slice(0, 0)
    slot = excluded[:, rows]
    block, row = (slot >= 0).nonzero(as_tuple=True)
    return block, row, slot[block, row]
