"""InfoNCE: contrast every row with others of its block, in bounded memory."""

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


class Sample(NamedTuple):
    """A few candidates that stand for all others of their block."""

    chosen: Int[Tensor, " sampled"]
    """Which candidates, drawn without regard to what they are."""
    own: Int[Tensor, " row"]
    """Which candidate each row itself is; it is always in its own sum, exactly."""


def infonce(
    rows: Rows,
    candidates: Rows | None = None,
    *,
    temperature: float,
    anchor: Anchor,
    both_signs: bool,
    chunk: int,
    sample: Sample | None = None,
) -> Float[Tensor, " row"]:
    """Return −log [exp(t_k·s_k/τ) / Σ_m exp(t_k·s_m/τ)] for every row k.

    Here t are the teacher's rows and s the student's, as in Algorithm 1 of the CRACK
    paper, and the sum over m runs over the candidates of the same block.

    With a sample, the sum over all m ≠ k is estimated by (M − 1)/n times the sum over
    the n sampled ones of the block's M candidates. The estimate of the sum is right on
    average, that of its logarithm a little too low; a sample of all is exact.

    Args:
        rows: The rows k.
        candidates: The rows m, the rows k among them; by default just these.
        temperature: τ.
        anchor: Whose rows are compared with all of the other's: the teacher's (paper),
            the student's (public code), or the mean of both losses.
        both_signs: Let the sum run over the candidates and their negatives.
        chunk: Rows of the score matrix that exist at a time.
        sample: Contrast with these candidates only.
    """
    others = candidates or rows
    positive = (rows.teacher * rows.student).sum(dim=-1) / temperature
    sums = []
    for anchors, columns, owner in (
        (rows.teacher, others.student, "teacher"),
        (rows.student, others.teacher, "student"),
    ):
        if anchor not in (owner, "both"):
            continue
        pool = Pool(columns, others.block, None)
        if sample is not None:
            pool = pool.sampled(sample)
        values = _log_sum_exp(
            anchors,
            rows.block,
            pool,
            temperature=temperature,
            both_signs=both_signs,
            chunk=chunk,
        )
        if sample is not None:
            own = torch.logaddexp(positive, -positive) if both_signs else positive
            weight = _log_weight(rows.block, others.block, pool)
            values = torch.logaddexp(own, values + weight)
        sums.append(values)
    return torch.stack(sums).mean(dim=0) - positive


class Pool(NamedTuple):
    """What rows are contrasted with."""

    columns: Float[Tensor, "candidate channel"]
    block: Int[Tensor, " candidate"]
    own: Int[Tensor, " row"] | None
    """The candidate that each row leaves out of its sum, −1 for none."""

    def sampled(self, sample: Sample) -> "Pool":
        """Return the sampled candidates; rows leave themselves out."""
        place = torch.full_like(self.block, -1)
        place[sample.chosen] = torch.arange(len(sample.chosen), device=place.device)
        return Pool(
            self.columns[sample.chosen], self.block[sample.chosen], place[sample.own]
        )


def _log_sum_exp(
    anchors: Float[Tensor, "row channel"],
    block: Int[Tensor, " row"],
    pool: Pool,
    *,
    temperature: float,
    both_signs: bool,
    chunk: int,
) -> Float[Tensor, " row"]:
    values = anchors.new_zeros(len(anchors))
    for part in alike_blocks(block, pool.block):
        sums = log_sum_exp(
            part.row_layout.pad(anchors[part.rows]),
            part.candidate_layout.pad(pool.columns[part.candidates]),
            part.candidate_layout.valid,
            temperature=temperature,
            both_signs=both_signs,
            chunk=chunk,
            excluded=None if pool.own is None else part.slots_of(pool.own),
        )
        values = values.index_put((part.rows,), part.row_layout.unpad(sums))
    return values


def _log_weight(
    block: Int[Tensor, " row"], all_blocks: Int[Tensor, " candidate"], pool: Pool
) -> Float[Tensor, " row"]:
    """Return log (M − 1)/n for every row, 0 where it has no others."""
    assert pool.own is not None
    counts = all_blocks.bincount()
    sampled = pool.block.bincount(minlength=len(counts))
    n_others = counts[block] - 1
    n_sampled = sampled[block] - (pool.own >= 0).long()
    weight = n_others.clamp_min(1) / n_sampled.clamp_min(1)
    return weight.log().to(pool.columns.dtype)
