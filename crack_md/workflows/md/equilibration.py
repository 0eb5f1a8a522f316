"""What a run should say about itself: whether it equilibrated, and in what cell."""

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce

from crack_md.workflows.md.settings import MDSettings

RELAXATION_TIMES = 5.0
"""A run shorter than this still knows its start: e⁻⁵ is 0.7 %."""
N_ERRORS = 3.0
SAME_TEMPERATURE = 0.02
"""Of the target; smaller differences come from the time step as well."""
MIN_VECTOR_A = 10.0
"""About twice the cutoff of most models: in smaller cells atoms feel images of each
other that move with them, and long waves are missing."""


class Mean(NamedTuple):
    """The mean of a series."""

    value: float
    error: float | None
    """Standard error; None where there are too few values to tell."""


def relaxation_times_fs(settings: MDSettings) -> dict[str, float]:
    """Return how long thermostat and barostat take to forget, where there are any."""
    times = {}
    if settings.ensemble != "nve" and settings.friction_per_ps > 0:
        times["thermostat"] = 1000.0 / settings.friction_per_ps
    if settings.ensemble == "npt":
        times["barostat"] = settings.pressure_time_fs
    return times


def reasons_against_equilibrium(
    temperature_K: Mean, *, time_fs: float, settings: MDSettings
) -> list[str]:
    """Return why a run cannot count as equilibrated; empty where nothing is against it.

    Args:
        temperature_K: of the second half.
        time_fs: of the whole run.
        settings: of the run.
    """
    times = relaxation_times_fs(settings)
    reasons = [
        f"its {time_fs / 1000:g} ps are shorter than five relaxation times of the "
        f"{name} ({RELAXATION_TIMES:g} × {period / 1000:g} ps)"
        for name, period in times.items()
        if time_fs < RELAXATION_TIMES * period * (1 - 1e-9)
    ]
    target = settings.temperature_K
    if "thermostat" not in times or temperature_K.error is None:
        return reasons
    off = abs(temperature_K.value - target)
    if off > max(N_ERRORS * temperature_K.error, SAME_TEMPERATURE * target):
        reasons.append(
            f"its second half is at {temperature_K.value:.0f} ± "
            f"{temperature_K.error:.0f} K, and the target is {target:g} K"
        )
    return reasons


def note_of_tiny_cell(atoms: Atoms) -> str:
    """Return what to say where atoms are near their own images; empty where not."""
    if not atoms.pbc.any():
        return ""
    reduced, _ = minkowski_reduce(atoms.cell.complete(), atoms.pbc)
    shortest = float(np.linalg.norm(reduced[atoms.pbc], axis=1).min())
    if shortest >= MIN_VECTOR_A:
        return ""
    return (
        f"the cell repeats after {shortest:.1f} Å, less than {MIN_VECTOR_A:g} Å (about "
        "twice the cutoff of most models): atoms move together with their images, and "
        "fluctuations are not those of a large crystal; repeat the cell"
    )
