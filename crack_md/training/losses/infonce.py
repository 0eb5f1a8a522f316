"""InfoNCE: contrast every row with others of its block, in bounded memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from crack_md.training.losses.base import (
    DistillationStep,
    Label,
    LossSection,
    Ranks,
    Weight,
)
from crack_md.training.losses.blocks import AlikeBlocks, alike_blocks, log_sum_exp

Anchor = Literal["teacher", "student", "both"]

MOST_NUMBERS = 1 << 22
"""Rows times channels that are kept for the gradient; more are made once again."""


class Rows(NamedTuple):
    """Unit vectors of teacher and student; row k of both is about the same thing."""

    take: Callable[[Tensor], tuple[Tensor, Tensor]]
    """Returns the rows of the teacher and of the student with these numbers."""
    block: Int[Tensor, " row"]
    """Rows of one number are contrasted with each other; numbers count from zero."""
    channels: int

    @classmethod
    def of(
        cls,
        teacher: Float[Tensor, "row channel"],
        student: Float[Tensor, "row channel"],
        block: Int[Tensor, " row"],
    ) -> "Rows":
        """Return rows that lie in memory."""

        def take(chosen: Tensor) -> tuple[Tensor, Tensor]:
            return teacher[chosen], student[chosen]

        return cls(take, block, teacher.shape[1])

    def all(self) -> tuple[Tensor, Tensor]:
        """Return all rows of the teacher and of the student."""
        return self.take(torch.arange(len(self.block), device=self.block.device))


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
        chunk: Rows of the score matrix of a block that exist at a time, at most.
        sample: Contrast with these candidates only.
    """
    others, sampling = candidates or rows, None
    if sample is not None:
        sampling = _sampling(rows.block, others.block, sample)
        others = Rows.of(*others.take(sample.chosen), others.block[sample.chosen])
    compute = partial(
        _losses,
        rows,
        None if others is rows else others,
        sampling,
        temperature=temperature,
        anchor=anchor,
        both_signs=both_signs,
        chunk=chunk,
    )
    most_rows = MOST_NUMBERS // rows.channels
    parts = list(alike_blocks(rows.block, others.block, most_rows=most_rows))
    if not parts:
        return rows.all()[1].sum(dim=-1)  # no row, but with a gradient
    if len(rows.block) > most_rows and len(parts) > 1:
        # large batches pay with time, a third more, and not with memory
        compute = partial(checkpoint, compute, use_reentrant=False)
    losses = torch.cat([compute(part) for part in parts])
    return losses[torch.cat([part.rows for part in parts]).argsort()]


class _Sampling(NamedTuple):
    own: Int[Tensor, " row"]
    """Each row's place in the sample, −1 for none."""
    log_weight: Float[Tensor, " row"]
    """log (M − 1)/n"""


def _sampling(
    block: Int[Tensor, " row"], all_blocks: Int[Tensor, " candidate"], sample: Sample
) -> _Sampling:
    place = torch.full_like(all_blocks, -1)
    place[sample.chosen] = torch.arange(len(sample.chosen), device=place.device)
    own = place[sample.own]
    counts = all_blocks.bincount()
    sampled = all_blocks[sample.chosen].bincount(minlength=len(counts))
    n_others = counts[block] - 1
    n_sampled = sampled[block] - (own >= 0).long()
    return _Sampling(own, (n_others.clamp_min(1) / n_sampled.clamp_min(1)).log())


def _losses(
    rows: Rows,
    others: Rows | None,
    sampling: _Sampling | None,
    part: AlikeBlocks,
    *,
    temperature: float,
    anchor: Anchor,
    both_signs: bool,
    chunk: int,
) -> Float[Tensor, " part_row"]:
    """Return the losses of the rows of some blocks."""
    layout = part.row_layout
    teacher, student = map(layout.pad, rows.take(part.rows))
    columns = teacher, student
    if others is not None:
        taken = others.take(part.candidates)
        columns = tuple(map(part.candidate_layout.pad, taken))  # type: ignore[assignment]
    positive = (teacher * student).sum(dim=-1) / temperature
    sums = []
    for anchors, candidates, owner in (
        (teacher, columns[1], "teacher"),
        (student, columns[0], "student"),
    ):
        if anchor not in (owner, "both"):
            continue
        values = log_sum_exp(
            anchors,
            candidates,
            part.candidate_layout.valid,
            temperature=temperature,
            both_signs=both_signs,
            chunk=chunk,
            excluded=None if sampling is None else part.slots_of(sampling.own),
        )
        if sampling is not None:
            own = torch.logaddexp(positive, -positive) if both_signs else positive
            weight = layout.pad(sampling.log_weight[part.rows].unsqueeze(1))
            values = torch.logaddexp(own, values + weight.squeeze(2))
        sums.append(values)
    return layout.unpad(torch.stack(sums).mean(dim=0) - positive)


N_KINDS = 1 << 14
"""More kinds than there are pairs of elements."""


@dataclass(frozen=True)
class Contrast:
    """Settings of InfoNCE that all contrastive terms share."""

    temperature: float
    anchor: Anchor
    negatives: Literal["structure", "global"]
    """The rows of a structure, or of all structures of all processes."""
    chunk: int
    sample: int | None = None
    """Draw this many candidates from each pool instead of taking all of it."""

    def __call__(
        self,
        rows: Rows,
        step: DistillationStep,
        *,
        both_signs: bool,
        kind: Int[Tensor, " row"] | None = None,
    ) -> Float[Tensor, " row"]:
        """Return the loss of every row of this process.

        Args:
            rows: Numbered by structure.
            step: The graph and the other processes.
            both_signs: A row and its negative are both candidates.
            kind: Contrast rows of one kind only; a number below `N_KINDS`.
        """
        if self.negatives == "global":
            block = torch.zeros_like(rows.block) if kind is None else kind
        elif kind is None:
            block = rows.block
        else:
            block = (rows.block * N_KINDS + kind).unique(return_inverse=True)[1]
        rows = rows._replace(block=block)
        everyone = None
        if self.negatives == "global":
            rows = Rows.of(*rows.all(), block)
            everyone = gather_rows(rows, step.ranks)
        return infonce(
            rows,
            everyone,
            temperature=self.temperature,
            anchor=self.anchor,
            both_signs=both_signs,
            chunk=self.chunk,
            sample=self._sample(rows, everyone, step.ranks),
        )

    def _sample(self, rows: Rows, everyone: Rows | None, ranks: Ranks) -> Sample | None:
        if self.sample is None:
            return None
        n_rows = len(rows.block)
        first = 0 if everyone is None else ranks.first_row(n_rows)
        own = first + torch.arange(n_rows, device=rows.block.device)
        block = rows.block if everyone is None else everyone.block
        return Sample(draw_from_blocks(block, self.sample), own)


def gather_rows(rows: Rows, ranks: Ranks) -> Rows:
    """Return the rows of all processes."""
    block = ranks.gather(rows.block.unsqueeze(1).double()).squeeze(1).long()
    teacher, student = rows.all()
    return Rows.of(ranks.gather(teacher), ranks.gather(student), block)


def draw_from_blocks(
    block: Int[Tensor, " row"], number: int
) -> Int[Tensor, " sampled"]:
    """Return so many random rows of each block, all of smaller ones.

    One number of the global random state seeds the drawing, whatever there is to draw:
    the state stays equal on all processes, and a resumed run draws the same.
    """
    seed = int(torch.randint(2**62, ()))
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(block), generator=generator).to(block.device)
    order = shuffled[block[shuffled].argsort(stable=True)]  # by block, shuffled within
    _, counts = block[order].unique_consecutive(return_counts=True)
    first = torch.repeat_interleave(counts.cumsum(dim=0) - counts, counts)
    place = torch.arange(len(block), device=block.device) - first
    return order[place < number]


class ContrastConfig(LossSection):
    """InfoNCE: what is contrasted with what, and how sharply."""

    weight: Weight
    temperature: float = Field(gt=0)
    anchor: Literal["teacher", "student", "both"] = "teacher"
    """Whose rows are compared with all of the other's."""
    negatives: Literal["structure", "global"] = "structure"
    """Contrast within each structure, or with all structures of all processes."""
    chunk: int = Field(default=1024, ge=1)
    """Rows of a pool's score matrix that exist at a time, at most."""
    sample: int | None = Field(default=None, ge=2)
    """Contrast with this many random candidates of the same pool, weighted to stand for
    all of them: an estimate of the sum in the logarithm, for large pools."""
    same_elements: bool = False
    """Contrast with the same element, or pair of elements, only: negatives that cannot
    be told apart by what they are made of."""

    @property
    def reads(self) -> tuple[Label, ...]:
        """Return what is read of the teacher."""
        return ("node_features",)

    @property
    def sees_whole_batch(self) -> bool:
        """Return whether all structures of a batch are compared with each other."""
        return self.negatives == "global"

    @property
    def contrast(self) -> Contrast:
        """Return against what a row is contrasted."""
        return Contrast(
            self.temperature, self.anchor, self.negatives, self.chunk, self.sample
        )
