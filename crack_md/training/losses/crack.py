"""CRACK: contrast the relations between neighboring atoms (InfoNCE on edges)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from crack_md.training.losses.base import DistillationStep
from crack_md.training.losses.infonce import log_sum_exp
from crack_md.training.losses.pairs import (
    AtomPairs,
    blocks_of,
    both_directions,
    unique_pairs,
)

Anchor = Literal["teacher", "student", "both"]


def relations(
    features: Float[Tensor, "atom channel"],
    pairs: AtomPairs,
    *,
    smallest_difference: float,
) -> tuple[Float[Tensor, "pair channel"], Float[Tensor, " pair"]]:
    """Return the directions r = (ẑ_i − ẑ_j)/‖ẑ_i − ẑ_j‖ and the lengths ‖ẑ_i − ẑ_j‖.

    Below the smallest difference the divisor stays at it: the direction of two equal
    atoms is round-off, and its gradient would grow as one over their distance.
    """
    unit = normalize(features, dim=-1, eps=1e-6)
    difference = unit[pairs.first] - unit[pairs.second]
    length = torch.linalg.vector_norm(difference, dim=-1)
    return difference / length.clamp_min(smallest_difference).unsqueeze(1), length


class Relations(NamedTuple):
    """Relations of teacher and student, laid out in blocks that share a denominator."""

    teacher: Float[Tensor, "block row channel"]
    student: Float[Tensor, "block row channel"]
    valid: Bool[Tensor, "block row"]
    """False for padding."""


def relational_infonce(
    anchors: Relations,
    candidates: Relations,
    *,
    temperature: float,
    anchor: Anchor,
    both_signs: bool,
    chunk: int,
) -> Float[Tensor, "block row"]:
    r"""Return −log [exp(r_Tk·r_Sk/τ) / Σ_m exp(r_Tk·r_Sm/τ)] for every relation k.

    Algorithm 1 of the CRACK paper. The sum over m runs over the candidates of the same
    block: a structure, or all structures together.

    Args:
        anchors: The relations k.
        candidates: The relations m, those of the anchors among them.
        temperature: τ.
        anchor: Whose relations are compared with all of the other's: the teacher's
            (paper), the student's (public code), or the mean of both losses.
        both_signs: Let the sum run over r and −r. Equal to listing every pair of atoms
            in both directions, at a quarter of the cost.
        chunk: Rows of the score matrix that exist at a time.
    """
    sums = [
        log_sum_exp(
            rows,
            columns,
            candidates.valid,
            temperature=temperature,
            both_signs=both_signs,
            chunk=chunk,
        )
        for rows, columns, owner in (
            (anchors.teacher, candidates.student, "teacher"),
            (anchors.student, candidates.teacher, "student"),
        )
        if anchor in (owner, "both")
    ]
    positive = (anchors.teacher * anchors.student).sum(dim=-1) / temperature
    return torch.stack(sums).mean(dim=0) - positive


@dataclass(frozen=True)
class CrackLoss:
    """The relational term: mean InfoNCE over the neighboring pairs of the batch."""

    temperature: float
    anchor: Anchor
    pairs: Literal["unique", "directed"]
    negatives: Literal["structure", "global"]
    chunk: int
    smallest_difference: float
    name: str = "crack"

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return the mean over pairs; a batch without pairs gives zero."""
        assert step.features is not None, "the builder checks that features are there"
        pairs = self._pairs(step)
        teacher, student = (
            relations(features, pairs, smallest_difference=self.smallest_difference)[0]
            for features in (step.features.teacher, step.features.student)
        )
        if self.negatives == "global":
            return step.mean(self._against_all(teacher, student, step))
        return step.mean(
            self._within_structures(teacher, student, step.graph.batch[pairs.first])
        )

    def _pairs(self, step: DistillationStep) -> AtomPairs:
        assert step.features is not None
        pairs = unique_pairs(step.graph)
        with torch.no_grad():
            _, length = relations(
                step.features.teacher,
                pairs,
                smallest_difference=self.smallest_difference,
            )
        pairs = pairs.keep(length > self.smallest_difference)
        if self.pairs == "unique":
            return pairs
        return both_directions(pairs, step.graph.batch)

    def _within_structures(
        self, teacher: Tensor, student: Tensor, structure: Tensor
    ) -> Float[Tensor, " pair"]:
        blocks = blocks_of(structure)
        rows = Relations(blocks.pad(teacher), blocks.pad(student), blocks.valid)
        return blocks.unpad(self._infonce(rows, rows))

    def _against_all(
        self, teacher: Tensor, student: Tensor, step: DistillationStep
    ) -> Float[Tensor, " pair"]:
        own, everyone = (
            Relations(t.unsqueeze(0), s.unsqueeze(0), t.new_ones(1, len(t)).bool())
            for t, s in (
                (teacher, student),
                (step.ranks.gather(teacher), step.ranks.gather(student)),
            )
        )
        return self._infonce(own, everyone).squeeze(0)

    def _infonce(
        self, anchors: Relations, candidates: Relations
    ) -> Float[Tensor, "block row"]:
        return relational_infonce(
            anchors,
            candidates,
            temperature=self.temperature,
            anchor=self.anchor,
            both_signs=self.pairs == "unique",
            chunk=self.chunk,
        )
