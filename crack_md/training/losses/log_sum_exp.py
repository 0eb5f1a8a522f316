"""Chunked log-sum-exp: contrast every row with every other in bounded memory."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def log_sum_exp(
    anchors: Float[Tensor, "block row channel"],
    candidates: Float[Tensor, "block candidate channel"],
    valid: Bool[Tensor, "block candidate"],
    *,
    temperature: float,
    both_signs: bool,
    chunk: int,
) -> Float[Tensor, "block row"]:
    """Return log Σ_m exp(a·c_m/τ), with ``both_signs`` log Σ_m 2 cosh(a·c_m/τ).

    The scores are computed for ``chunk`` rows at a time and computed again for the
    gradient, so that memory is O(chunk · candidates), never rows · candidates.

    Args:
        anchors: a.
        candidates: c.
        valid: False for the padding among the candidates; it joins no sum.
        temperature: τ.
        both_signs: Sum over c and −c: a pair of atoms and the same pair reversed.
        chunk: Rows per piece, those of all blocks together.
    """
    result: Tensor = _ChunkedLogSumExp.apply(  # type: ignore[no-untyped-call]
        anchors, candidates, valid, temperature, both_signs, chunk
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
    ) -> Tensor:
        columns = (candidates / temperature).transpose(1, 2)
        padding = torch.where(valid, 0.0, -torch.inf).to(anchors.dtype).unsqueeze(1)
        chunk = max(1, chunk // max(1, len(anchors)))
        pieces = []
        for rows in anchors.split(chunk, dim=1):
            scores = rows @ columns
            if both_signs:
                largest = scores.abs().amax(dim=-1, keepdim=True)
                offset = padding - largest
                total = (offset + scores).exp_().sum(dim=-1)
                total += offset.sub_(scores).exp_().sum(dim=-1)
            else:
                scores += padding
                largest = scores.amax(dim=-1, keepdim=True)
                total = scores.sub_(largest).exp_().sum(dim=-1)
            pieces.append(total.log_() + largest.squeeze(-1))
        result = torch.cat(pieces, dim=1)
        ctx.save_for_backward(anchors, candidates, padding, result)
        ctx.settings = temperature, both_signs, chunk
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        anchors, candidates, padding, result = ctx.saved_tensors
        temperature, both_signs, chunk = ctx.settings
        to_anchors = torch.empty_like(anchors)
        to_candidates = torch.zeros_like(candidates)
        columns = (candidates / temperature).transpose(1, 2)
        for start in range(0, anchors.shape[1], chunk):
            piece = slice(start, start + chunk)
            scores = anchors[:, piece] @ columns
            # a row of padding has the log-sum-exp of its block, so this stays finite
            offset = padding - result[:, piece].unsqueeze(2)
            weight = (offset + scores).exp_()
            if both_signs:
                weight -= offset.sub_(scores).exp_()
            weight *= (grads[0][:, piece] / temperature).unsqueeze(2)
            to_anchors[:, piece] = weight @ candidates
            to_candidates += weight.transpose(1, 2) @ anchors[:, piece]
        return to_anchors, to_candidates, None, None, None, None
