"""CRACK: contrast the relations between neighboring atoms (InfoNCE on edges)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from crack_md.training.losses.base import DistillationStep
from crack_md.training.losses.contrast import Contrast
from crack_md.training.losses.infonce import Rows
from crack_md.training.losses.pairs import AtomPairs, both_directions, unique_pairs


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


@dataclass(frozen=True)
class CrackLoss:
    """The relational term: mean InfoNCE over the neighboring pairs of the batch."""

    contrast: Contrast
    pairs: Literal["unique", "directed"]
    smallest_difference: float
    name: str = "crack"

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return the mean over pairs; a batch without pairs gives zero."""
        teacher, student = step.features_of(self.name)[0]
        pairs = self._pairs(step, teacher)
        rows = Rows(
            self._relations(teacher, pairs)[0],
            self._relations(student, pairs)[0],
            step.graph.batch[pairs.first],
        )
        # both signs equal both directions, at a quarter of the cost
        both_signs = self.pairs == "unique"
        return step.mean(self.contrast(rows, step, both_signs=both_signs))

    def _relations(
        self, features: Tensor, pairs: AtomPairs
    ) -> tuple[Float[Tensor, "pair channel"], Float[Tensor, " pair"]]:
        return relations(features, pairs, smallest_difference=self.smallest_difference)

    def _pairs(self, step: DistillationStep, teacher: Tensor) -> AtomPairs:
        pairs = unique_pairs(step.graph)
        with torch.no_grad():
            _, length = self._relations(teacher, pairs)
        pairs = pairs.keep(length > self.smallest_difference)
        return pairs if self.pairs == "unique" else both_directions(pairs)
