"""A model on frames of the reference: its energies there, and its errors."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.workflows.sampling.potential import Potential
from crack_md.workflows.sampling.reference import Reference
from crack_md.workflows.sampling.thermometers import (
    Temperature,
    virial_temperature,
)


@dataclass(frozen=True)
class OnReference:
    """The model on frames of the reference, energies on the reference's scale."""

    energies: Float[NDArray[np.float64], " frame"]
    """eV; the median difference from the reference's energies is taken off."""
    offset: float
    """eV: this difference."""
    energy_mae: float | None
    """eV, after that; None where the reference has no energies."""
    force_mae: float | None
    """eV/Å per component; None where the reference has no forces."""
    virial: Temperature
    """Virial temperature of these frames with the model's forces."""


def evaluate_reference(
    frames: Reference,
    potential: Potential,
    *,
    report: Callable[[int], None] | None = None,
) -> OnReference:
    """Return what a model says about frames of the reference.

    Raises:
        CrackError: it cannot be applied to one of them.
    """
    found = potential.evaluate_all(frames.positions, report=report)
    offset, energy_mae, force_mae = 0.0, None, None
    if frames.energies is not None:
        difference = found.energies - frames.energies
        offset = float(np.median(difference))
        energy_mae = float(np.abs(difference - offset).mean())
    if frames.forces is not None:
        force_mae = float(np.abs(found.forces - frames.forces).mean())
    virial = virial_temperature(frames.positions, found.forces)
    return OnReference(found.energies - offset, offset, energy_mae, force_mae, virial)
