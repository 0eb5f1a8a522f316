"""Against what a row is contrasted: its structure, or all structures of all ranks."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from crack_md.training.losses.base import DistillationStep, Ranks
from crack_md.training.losses.infonce import Anchor, Rows, infonce


@dataclass(frozen=True)
class Contrast:
    """Settings of InfoNCE that all contrastive terms share."""

    temperature: float
    anchor: Anchor
    negatives: Literal["structure", "global"]
    chunk: int

    def __call__(
        self, rows: Rows, step: DistillationStep, *, both_signs: bool
    ) -> Float[Tensor, " row"]:
        """Return the loss of every row of this process.

        Args:
            rows: Numbered by structure.
            step: The graph and the other processes.
            both_signs: A row and its negative are both candidates.
        """
        candidates = None
        if self.negatives == "global":
            rows = rows._replace(block=torch.zeros_like(rows.block))
            candidates = gather_rows(rows, step.ranks)
        return infonce(
            rows,
            candidates,
            temperature=self.temperature,
            anchor=self.anchor,
            both_signs=both_signs,
            chunk=self.chunk,
        )


def gather_rows(rows: Rows, ranks: Ranks) -> Rows:
    """Return the rows of all processes."""
    block = ranks.gather(rows.block.unsqueeze(1).double()).squeeze(1).long()
    return Rows(ranks.gather(rows.teacher), ranks.gather(rows.student), block)
