"""Batches of training steps: which frames, and how processes share and label them.

Everything here is a function of the step and the seed alone. A resumed run needs no
sampler state, and every process draws the same batch and takes its own part of it.
"""

import heapq
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from crack_md.errors import ConfigError
from crack_md.training.data.frames import Batch, Frames
from crack_md.training.data.labels import OnlineLabels
from crack_md.training.loop.monitor import Clock

Sampler = Callable[[int], Int[Tensor, " structure"]]
"""Returns the frames of a step, the same ones in every process."""


class FixedNumber:
    """Batches of so many structures: endless shuffled passes over the set.

    A batch may hold the end of one pass and the beginning of the next.
    """

    def __init__(self, n_frames: int, batch_size: int, *, seed: int) -> None:
        self._n_frames, self._batch_size, self._seed = n_frames, batch_size, seed

    def __call__(self, step: int) -> Int[Tensor, " structure"]:
        """Return the frames of a step."""
        places = torch.arange(step * self._batch_size, (step + 1) * self._batch_size)
        passes = places // self._n_frames
        chosen = torch.empty_like(places)
        for number in range(int(passes[0]), int(passes[-1]) + 1):
            here = passes == number
            order = shuffled(self._n_frames, self._seed, number)
            chosen[here] = order[places[here] % self._n_frames]
        return chosen


class FixedAtoms:
    """Batches of about so many atoms: every pass is cut where they are reached.

    The number of batches in a pass is fixed, ⌊atoms of the set / atoms per batch⌋, and
    a frame goes to the batch in which its middle atom lies. So every pass takes every
    frame once, and a batch misses the mean by at most the size of one frame.

    Raises:
        ConfigError: A part of a batch could stay without any structure.
    """

    def __init__(
        self,
        sizes: Int[Tensor, " frame"],
        atoms_per_batch: int,
        *,
        seed: int,
        n_parts: int = 1,
    ) -> None:
        self._sizes, self._seed = sizes, seed
        n_atoms, largest = int(sizes.sum()), int(sizes.max())
        self._per_pass = max(n_atoms // atoms_per_batch, 1)
        # frames of at most this size put a middle atom into every part of a batch
        if self._per_pass * n_parts * largest > n_atoms:
            raise ConfigError(
                f"run.atoms_per_batch {atoms_per_batch} of {n_atoms} in the set leaves "
                f"too few for {n_parts} parts (accumulate x devices x num_nodes) and a "
                f"largest structure of {largest} atoms; give at least "
                f"{n_parts * largest}, or use fewer parts"
            )

    def __call__(self, step: int) -> Int[Tensor, " structure"]:
        """Return the frames of a step."""
        number, batch = divmod(step, self._per_pass)
        return self._cut(number)[batch]

    @lru_cache(maxsize=2)  # noqa: B019  (lives as long as the run)
    def _cut(self, number: int) -> tuple[Int[Tensor, " structure"], ...]:
        order = shuffled(len(self._sizes), self._seed, number)
        sizes = self._sizes[order]
        twice_middle = 2 * sizes.cumsum(dim=0) - sizes
        batch = twice_middle * self._per_pass // (2 * sizes.sum())
        counts = batch.bincount(minlength=self._per_pass)
        return order.split(counts.tolist())


@lru_cache(maxsize=2)
def shuffled(n_frames: int, seed: int, number: int) -> Int[Tensor, " frame"]:
    """Return the order in which a pass with this number takes the frames."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    return torch.randperm(n_frames, generator=generator)


def balanced_parts(
    frames: Int[Tensor, " structure"], sizes: Int[Tensor, " structure"], n_parts: int
) -> list[Int[Tensor, " part"]]:
    """Return the frames in parts with about equal numbers of atoms.

    The largest frame first, each goes to the part that has the fewest atoms. Frames
    keep their order within a part; no part is empty unless there are too few frames.
    """
    if n_parts == 1:
        return [frames]
    owner = [0] * len(frames)
    loads = [(0, part) for part in range(n_parts)]
    atoms = sizes.tolist()
    for place in sorted(range(len(atoms)), key=lambda place: -atoms[place]):
        load, part = heapq.heappop(loads)
        owner[place] = part
        heapq.heappush(loads, (load + atoms[place], part))
    owners = torch.tensor(owner)
    return [frames[owners == part] for part in range(n_parts)]


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Set the global random state, from which losses draw, for a step.

    Processes draw the same numbers, and a resumed run those that it would have drawn.
    """
    number = seed * 1_000_003 + step
    torch.default_generator.manual_seed(number)  # torch.manual_seed is 100 times slower
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


class StepBatch(NamedTuple):
    """What one process does of one step."""

    parts: list[Batch]
    """To be accumulated; usually one."""
    n_structures: int
    """Structures of the whole step, over all parts and processes."""


class BatchSource:
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
