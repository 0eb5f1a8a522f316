"""Energies and forces of copies of a molecule, and of frames of the reference."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculationFailed
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crack_md.calculators.batched import calculate_each
from crack_md.errors import CrackError
from crack_md.workflows.sampling.reference import ReferenceFrames
from crack_md.workflows.sampling.temperature import (
    Temperature,
    virial_temperature,
)

Positions = Float[NDArray[np.float64], "copy atom 3"]
CHUNK = 64


@dataclass(frozen=True)
class Evaluated:
    """Energies in eV and forces in eV/Å; NaN where there are none."""

    energies: Float[NDArray[np.float64], " copy"]
    forces: Positions
    errors: dict[int, CrackError | CalculationFailed]
    """Why there are none, by copy."""


class MoleculePotential:
    """A calculator and the molecule it is asked about.

    A calculator with a method ``calculate_many(structures, properties)``, which returns
    for every structure its results or an error, is asked for all copies at once; any
    other for one after the other.

    Args:
        numbers: atomic numbers.
        calculator: any ASE calculator.
    """

    def __init__(
        self, numbers: Int[NDArray[np.int64], " atom"], calculator: BaseCalculator
    ) -> None:
        self.numbers = numbers
        self.calculator = calculator

    @property
    def forces_kind(self) -> Literal["gradient", "direct"]:
        """Return whether forces are the gradient of the energy.

        Calculators other than ours do not say; they count as gradients.
        """
        return getattr(self.calculator, "forces_kind", "gradient")

    def evaluate(self, positions: Positions) -> Evaluated:
        """Return energies and forces of all copies, with the errors of those that fail.

        Raises:
            Exception: what the calculator raises that is not about one structure.
        """
        copies = [Atoms(self.numbers, frame) for frame in positions]
        energies, forces = np.full(len(copies), np.nan), np.full_like(positions, np.nan)
        errors: dict[int, CrackError | CalculationFailed] = {}
        answers = calculate_each(copies, self.calculator, ("energy", "forces"))
        for place, answer in enumerate(answers):
            if isinstance(answer, CrackError | CalculationFailed):
                errors[place] = answer
            elif isinstance(answer, Exception):
                raise answer
            else:
                energies[place], forces[place] = answer["energy"], answer["forces"]
        return Evaluated(energies, forces, errors)

    def evaluate_all(
        self, positions: Positions, *, report: Callable[[int], None] | None = None
    ) -> Evaluated:
        """Return energies and forces of many frames, none of which may fail.

        Args:
            positions: Å.
            report: called with the number of frames done.

        Raises:
            CrackError: a frame failed.
        """
        parts = []
        for start in range(0, len(positions), CHUNK):
            part = self.evaluate(positions[start : start + CHUNK])
            for error in part.errors.values():
                raise error
            parts.append(part)
            if report is not None:
                report(min(start + CHUNK, len(positions)))
        return Evaluated(
            np.concatenate([part.energies for part in parts]),
            np.concatenate([part.forces for part in parts]),
            {},
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
    frames: ReferenceFrames,
    potential: MoleculePotential,
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
