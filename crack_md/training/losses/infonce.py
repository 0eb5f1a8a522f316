"""InfoNCE: contrast every row with all others of its block, in bounded memory."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crack_md.training.losses.blocks import alike_blocks
from crack_md.training.losses.log_sum_exp import log_sum_exp

Anchor = Literal["teacher", "student", "both"]


class Rows(NamedTuple):
    """Unit vectors of teacher and student; row k of both is about the same thing."""

    teacher: Float[Tensor, "row channel"]
    student: Float[Tensor, "row channel"]
    block: Int[Tensor, " row"]
    """Rows of one number are contrasted with each other; numbers count from zero."""


def infonce(
    rows: Rows,
    candidates: Rows | None = None,
    *,
    temperature: float,
    anchor: Anchor,
    both_signs: bool,
    chunk: int,
) -> Float[Tensor, " row"]:
    """Return −log [exp(t_k·s_k/τ) / Σ_m exp(t_k·s_m/τ)] for every row k.

    Here t are the teacher's rows and s the student's, as in Algorithm 1 of the CRACK
    paper, and the sum over m runs over the candidates of the same block.

    Args:
        rows: The rows k.
        candidates: The rows m, the rows k among them; by default just these.
        temperature: τ.
        anchor: Whose rows are compared with all of the other's: the teacher's (paper),
            the student's (public code), or the mean of both losses.
        both_signs: Let the sum run over the candidates and their negatives.
        chunk: Rows of the score matrix that exist at a time.
    """
    others = candidates or rows
    sums = []
    for anchors, columns, owner in (
        (rows.teacher, others.student, "teacher"),
        (rows.student, others.teacher, "student"),
    ):
        if anchor not in (owner, "both"):
            continue
        values = anchors.new_zeros(len(anchors))
        for part in alike_blocks(rows.block, others.block):
            scores = log_sum_exp(
                part.row_layout.pad(anchors[part.rows]),
                part.candidate_layout.pad(columns[part.candidates]),
                part.candidate_layout.valid,
                temperature=temperature,
                both_signs=both_signs,
                chunk=chunk,
            )
            values = values.index_put((part.rows,), part.row_layout.unpad(scores))
        sums.append(values)
    positive = (rows.teacher * rows.student).sum(dim=-1) / temperature
    return torch.stack(sums).mean(dim=0) - positive
