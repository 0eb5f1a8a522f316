"""How fast a model is: latency, throughput and memory, alone and in batches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import ase
import numpy as np
import torch
from ase.build import add_adsorbate, fcc111
from ase.calculators.calculator import all_changes

from crack_md.bench.timing import (
    TimingSummary,
    ns_per_day,
    peak_bytes,
    reset_peak,
    resident_bytes,
    seconds_per_call,
    summary,
)
from crack_md.calculators.crack import CrackCalculator
from crack_md.calculators.engine import Compile

SLABS = {46: (3, 3, 5), 81: (4, 5, 4)}
"""Sizes of Pt(111) slabs by their number of atoms, with the O on top."""
LAYERS = 5
PROPERTIES = ("energy", "forces")
MOVE_A = 0.01
"""How far atoms move between two calls: as in a step of molecular dynamics."""


@dataclass(frozen=True)
class Speed:
    """What a model took for one structure, or for many that are alike."""

    name: str
    n_atoms: int
    """Of all structures together."""
    n_structures: int
    first_s: float
    """Time of the first call, which compiles where the engine does."""
    latency: TimingSummary
    """Of calls on moved atoms; of a batch, for all of it."""
    peak_bytes: int
    """Most memory: of the GPU, or of the process beyond what libraries take."""

    @property
    def atom_steps_per_s(self) -> float:
        """Return how many atoms are evaluated in a second."""
        return self.n_atoms / self.latency.median_s

    @property
    def ns_per_day(self) -> float | None:
        """Return ns of molecular dynamics at 1 fs a step; None for batches."""
        if self.n_structures > 1:
            return None
        return ns_per_day(self.latency.median_s)


class SpeedTest:
    """Times one model on structures, through the calculator that users have.

    Args:
        model: A file or a name.
        device: As of `CrackCalculator`, like the others.
        dtype: Precision.
        compile: Whether to compile.
        repeats: Calls behind a median.
        limit_s: Time for the calls of one structure; slow ones are repeated less.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: Literal["float32", "float64", "bfloat16", "tf32"] = "float32",
        compile: Compile = "auto",
        repeats: int = 20,
        limit_s: float = 60.0,
    ) -> None:
        self._base_bytes = resident_bytes()
        self.calculator = CrackCalculator(
            model, device=device, dtype=dtype, compile=compile
        )
        self.repeats, self.limit_s = repeats, limit_s

    def single(self, atoms: ase.Atoms, *, name: str) -> Speed:
        """Return the speed on one structure: from Atoms to energy and forces."""
        moved = atoms.copy()

        def call() -> None:
            self.calculator.calculate(moved, list(PROPERTIES), all_changes)

        return self._measure(call, [moved], name)

    def batch(self, atoms: ase.Atoms, n_structures: int, *, name: str) -> Speed:
        """Return the speed on differently rattled copies, in as few passes as are fast.

        Raises:
            CrackError: A structure was refused, or too large for the memory.
        """
        structures = [atoms.copy() for _ in range(n_structures)]

        def call() -> None:
            for results in self.calculator.calculate_many(structures, PROPERTIES):
                if isinstance(results, Exception):
                    raise results

        return self._measure(call, structures, name)

    def _measure(
        self, call: Callable[[], Any], structures: list[ase.Atoms], name: str
    ) -> Speed:
        random = np.random.default_rng(0)
        start = [one.positions.copy() for one in structures]

        def advance() -> None:
            for one, origin in zip(structures, start, strict=True):
                one.positions = origin + random.normal(0.0, MOVE_A, origin.shape)

        times = {"advance": advance, "synchronize": self._synchronize}
        on_gpu = self.calculator.device.type == "cuda"
        reset_peak()
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.calculator.device)
        first, second = seconds_per_call(call, 2, **times)
        n_calls = max(1, min(self.repeats, int(self.limit_s / second)))
        seconds = seconds_per_call(call, n_calls, **times)
        return Speed(
            name=name,
            n_atoms=sum(len(one) for one in structures),
            n_structures=len(structures),
            first_s=first,
            latency=summary(seconds),
            peak_bytes=torch.cuda.max_memory_allocated(self.calculator.device)
            if on_gpu
            else peak_bytes() - self._base_bytes,
        )

    def _synchronize(self) -> None:
        if self.calculator.device.type == "cuda":
            torch.cuda.synchronize(self.calculator.device)


def platinum_slab(n_atoms: int) -> ase.Atoms:
    """Return O on a rattled Pt(111) slab of about so many atoms."""
    columns = max(round((n_atoms - 1) / LAYERS), 1)
    width = max(int(columns**0.5), 1)
    size = SLABS.get(n_atoms, (width, max(round(columns / width), 1), LAYERS))
    atoms = fcc111("Pt", size, a=3.97, vacuum=7.0, periodic=True)
    add_adsorbate(atoms, "O", 1.3, "fcc")
    atoms.rattle(0.05, seed=0)
    return atoms
