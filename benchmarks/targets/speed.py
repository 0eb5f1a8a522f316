"""Time of a call through ASE on one core, beside another model in the same run."""

from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator

from benchmarks.models import named_potential
from benchmarks.targets.record import Check, Details, Subjects
from crack_md.bench.speed import platinum_slab
from crack_md.bench.timing import seconds_per_call

N_ATOMS, ROUNDS, CALLS, WARM_UP = 46, 5, 8, 3
MOVE_A = 0.01
TARGET_MS_PER_ATOM = 0.4


def measure_speed(subjects: Subjects) -> tuple[list[Check], Details]:
    """Measure energy and forces of 46 atoms in ms/atom, in turn with another model."""
    names = {"model": subjects.model, "other": subjects.other}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timers = {
            which: timer(named_potential(name)[0]) for which, name in names.items()
        }
        rounds: dict[str, list[float]] = {which: [] for which in names}
        for _ in range(ROUNDS):
            for which, seconds in timers.items():
                rounds[which].append(median(seconds()))
    finally:
        torch.set_num_threads(threads)
    per_atom = {
        which: 1000.0 * median(found) / N_ATOMS for which, found in rounds.items()
    }
    ratios = np.array(rounds["model"]) / np.array(rounds["other"])
    return [
        Check(
            "energy and forces, one core, 46 atoms",
            per_atom["model"],
            "ms/atom",
            TARGET_MS_PER_ATOM,
        ),
        Check(f"time against '{subjects.other}'", float(np.median(ratios)), "×"),
    ], {"rounds_s": rounds, "ms_per_atom": per_atom, "ratios": ratios.tolist()}


def timer(calculator: BaseCalculator) -> Callable[[], list[float]]:
    """Return what times some calls on atoms that move a little in between."""
    atoms = platinum_slab(N_ATOMS)
    atoms.calc = calculator
    origin, random = atoms.positions.copy(), np.random.default_rng(0)

    def move() -> None:
        atoms.positions = origin + random.normal(0.0, MOVE_A, origin.shape)

    def call() -> None:
        atoms.get_potential_energy()
        atoms.get_forces()

    seconds_per_call(call, WARM_UP, advance=move)
    return lambda: seconds_per_call(call, CALLS, advance=move)
