"""The batch of every step, as this process sees it: drawn, shared out and labelled."""

from typing import NamedTuple

import torch

from crack_md.data.batches import Batch
from crack_md.training.clock import Clock
from crack_md.training.frames import Frames
from crack_md.training.online import OnlineLabels
from crack_md.training.sampling import Sampler, balanced_parts


class StepBatch(NamedTuple):
    """What one process does of one step."""

    parts: list[Batch]
    """To be accumulated; usually one."""
    n_structures: int
    """Structures of the whole step, over all parts and processes."""


class Feed:
    """Cuts the batch of a step for all processes and hands out this one's parts.

    Args:
        frames: What to train on.
        sampler: Which frames a step takes.
        rank: Number of this process.
        n_ranks: How many there are.
        accumulate: Parts per process.
        device: Where batches go.
        teacher: Asked for labels at every step, where they are not stored.
    """

    def __init__(
        self,
        frames: Frames,
        sampler: Sampler,
        *,
        rank: int,
        n_ranks: int,
        accumulate: int,
        device: torch.device,
        teacher: OnlineLabels | None = None,
    ) -> None:
        self.frames = frames
        self._sampler = sampler
        self._rank, self._n_ranks, self._accumulate = rank, n_ranks, accumulate
        self._device = device
        self._teacher = teacher

    def __call__(self, step: int, clock: Clock) -> StepBatch:
        """Return the batch of a step, and tell the clock what took how long."""
        drawn = self._sampler(step)
        n_parts = self._n_ranks * self._accumulate
        parts = balanced_parts(drawn, self.frames.sizes[drawn], n_parts)
        own = parts[self._rank :: self._n_ranks]
        batches = [self.frames.batch(part, device=self._device) for part in own]
        clock.lap("data")
        if self._teacher is not None:
            batches = [
                self._teacher(batch, part, step=step)
                for batch, part in zip(batches, own, strict=True)
            ]
            clock.lap("teacher")
        return StepBatch(batches, len(drawn))
