"""Energies and forces of many copies of one molecule, by any ASE calculator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculationFailed
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crack_md.errors import CrackError

Positions = Float[NDArray[np.float64], "copy atom 3"]
Report = Callable[[int], None]
CHUNK = 64


@dataclass(frozen=True)
class Evaluated:
    """Energies in eV and forces in eV/Å; NaN where there are none."""

    energies: Float[NDArray[np.float64], " copy"]
    forces: Positions
    errors: dict[int, CrackError | CalculationFailed]
    """Why there are none, by copy."""


class Potential:
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
        for place, answer in enumerate(self._answers(copies)):
            if isinstance(answer, CrackError | CalculationFailed):
                errors[place] = answer
            elif isinstance(answer, Exception):
                raise answer
            else:
                energies[place], forces[place] = answer["energy"], answer["forces"]
        return Evaluated(energies, forces, errors)

    def evaluate_all(
        self, positions: Positions, *, report: Report | None = None
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

    def _answers(self, copies: list[Atoms]) -> list[dict[str, Any] | Exception]:
        many = getattr(self.calculator, "calculate_many", None)
        if many is not None:
            return list(many(copies, properties=("energy", "forces")))
        return [self._answer(atoms) for atoms in copies]

    def _answer(self, atoms: Atoms) -> dict[str, Any] | Exception:
        try:
            return {
                name: self.calculator.get_property(name, atoms)
                for name in ("energy", "forces")
            }
        except (CrackError, CalculationFailed) as error:
            return error
