"""How many atoms share one forward pass.

On a GPU memory decides: the first pass takes the largest structure alone, and the peak
of its memory, counted per entry of the neighbor table (atoms × slots), says how much
fits into what is free. It is counted again when a batch is more than twice as large.

On a CPU nothing is gained beyond some thousand entries: `CPU_ENTRIES`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch

from crack_md.errors import ConfigError

Result = TypeVar("Result")

CPU_ENTRIES = 128 * 40
"""Atoms times slots in one pass on a CPU.

Measured with the packaged student on one core, 35 to 48 neighbors: cells of 5 atoms
take 2.0 ms per atom alone, 1.1 ms in batches of 40 to 160 atoms, 1.9 ms in one of 320;
cells of 37 atoms 1.6 ms alone, 1.1 ms from 74 to 592, 1.7 ms in one of 1,184.
"""
FILL = 0.8
"""Share of the free memory that a batch is meant to take: allocators leave gaps."""
REMEASURE = 2.0
"""Memory is counted again for batches so many times larger than the last counted."""


@runtime_checkable
class DeviceMemory(Protocol):
    """What a device says about its memory."""

    def free_bytes(self) -> int:
        """Return how much more tensors may take."""
        ...

    def peak_bytes(self, call: Callable[[], Result]) -> tuple[Result, int]:
        """Return the result of a call, and what it took at its peak."""
        ...


class CudaMemory:
    """Memory of one GPU, as PyTorch counts it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def free_bytes(self) -> int:
        """Return what is free on the GPU or kept by PyTorch for reuse."""
        kept = torch.cuda.memory_reserved(self.device)
        used = torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + kept - used

    def peak_bytes(self, call: Callable[[], Result]) -> tuple[Result, int]:
        """Return the result of a call, and what it took at its peak."""
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        result = call()
        return result, torch.cuda.max_memory_allocated(self.device) - before


class AtomLimit:
    """The largest batch: a given number of atoms, or what fits into memory.

    Args:
        atoms: the most atoms in one pass; None where something else decides.
        entries: the most atoms times slots; likewise.
        memory: of the device; None where it has no say.
    """

    def __init__(
        self,
        atoms: int | None = None,
        *,
        entries: int | None = None,
        memory: DeviceMemory | None = None,
    ) -> None:
        self._atoms, self._entries = atoms, entries
        self._memory = memory
        self._bytes_per_entry: float | None = None
        self._measured_entries = 0

    def atoms(self, width: int) -> int:
        """Return how many atoms with tables of this width may share a pass.

        0 means that nothing is known yet: one structure has to go alone.
        """
        limits = [] if self._atoms is None else [self._atoms]
        if self._entries is not None:
            limits.append(self._entries // max(width, 1))
        if self._memory is not None:
            if self._bytes_per_entry is None:
                return 0
            room = FILL * self._memory.free_bytes()
            limits.append(int(room / (self._bytes_per_entry * max(width, 1))))
        return min(limits)

    def observe(self, n_entries: int, call: Callable[[], Result]) -> Result:
        """Return the result of a pass over so many table entries, and learn from it."""
        if self._memory is None or n_entries <= REMEASURE * self._measured_entries:
            return call()
        result, peak = self._memory.peak_bytes(call)
        self._bytes_per_entry = max(peak, 1) / n_entries
        self._measured_entries = n_entries
        return result

    def lower(self, n_atoms: int) -> None:
        """Remember that so many atoms did not fit: half of them is the new limit."""
        half = max(n_atoms // 2, 1)
        self._atoms = half if self._atoms is None else min(self._atoms, half)


def limit_for(device: torch.device, atoms_per_batch: int | None = None) -> AtomLimit:
    """Return the limit of a device, or the one that the user wants.

    Raises:
        ConfigError: a limit below one atom.
    """
    if atoms_per_batch is not None:
        if atoms_per_batch < 1:
            raise ConfigError(
                f"atoms_per_batch is {atoms_per_batch}; expected 1 or more"
            )
        return AtomLimit(atoms_per_batch)
    if device.type == "cuda":
        return AtomLimit(memory=CudaMemory(device))
    return AtomLimit(entries=CPU_ENTRIES)


def count_in_batch(sizes: Sequence[int], limit: int) -> int:
    """Return how many of the first structures make the next batch, at least one.

    The rest is meant to need equally large batches: 5 structures of 30 atoms under a
    limit of 128 go as 2 and 3, not as 4 and 1.
    """
    total = sum(sizes)
    n_batches = -(-total // max(limit, 1))
    n_atoms, count = 0, 0
    for size in sizes:
        n_atoms += size
        if count and n_atoms * n_batches > total:
            break
        count += 1
    return count
