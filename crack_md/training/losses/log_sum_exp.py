"""Chunked log-sum-exp: all rows with all candidates, in bounded memory."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

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
