"""Against what a row is contrasted: where its negatives come from, and how many."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crack_md.training.losses.base import DistillationStep, Ranks
from crack_md.training.losses.infonce import Anchor, Rows, Sample, infonce

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
