"""Forces on many replicas at once: what their dynamics asks for at every step."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculationFailed
from jaxtyping import Float

from crack_md.calculators.batched import BatchCalculator, Trajectory, calculate_each
from crack_md.errors import StructureError

NO_ERRORS: Mapping[int, str] = MappingProxyType({})


class ForceBatch(NamedTuple):
    """Energies and forces of all replicas; not finite where there are none."""

    energies: Float[np.ndarray, " replica"]
    """eV."""
    forces: Float[np.ndarray, "atom 3"]
    """eV/Å, of the atoms of all replicas in their order."""
    errors: Mapping[int, str] = NO_ERRORS
    """Why there are none, by replica."""


@runtime_checkable
class BatchForces(Protocol):
    """Anything that has forces for positions of all replicas: a model, a formula."""

    def forces(
        self, positions: Float[np.ndarray, "atom 3"]
    ) -> ForceBatch | tuple[Float[np.ndarray, " replica"], Float[np.ndarray, "atom 3"]]:
        """Return energies (eV) and forces (eV/Å) at the positions (Å)."""
        ...


class CalculatorForces:
    """Forces by a calculator, in one call if it takes batches.

    Args:
        structures: what the replicas are; their positions are not used.
        calculator: `CrackCalculator`, `BatchEvaluator` or any ASE calculator.
    """

    def __init__(
        self,
        structures: Sequence[Atoms],
        calculator: BatchCalculator | BaseCalculator,
    ) -> None:
        self.calculator = calculator
        self._structures = [atoms.copy() for atoms in structures]
        self._trajectories = [Trajectory() for _ in structures]
        self._ends = np.cumsum([len(atoms) for atoms in structures])

    def forces(self, positions: Float[np.ndarray, "atom 3"]) -> ForceBatch:
        """Return energies and forces; a structure that is refused has none.

        Raises:
            Exception: what else the calculator raises, such as lack of memory.
        """
        for atoms, end in zip(self._structures, self._ends, strict=True):
            atoms.positions = positions[end - len(atoms) : end]
        found = calculate_each(
            self._structures,
            self.calculator,
            properties=("energy", "forces"),
            trajectories=self._trajectories,
        )
        energies, forces = np.full(len(found), np.nan), np.full_like(positions, np.nan)
        errors = {}
        for replica, (results, end) in enumerate(zip(found, self._ends, strict=True)):
            if isinstance(results, StructureError | CalculationFailed):
                errors[replica] = str(results)
            elif isinstance(results, Exception):
                raise results
            else:
                energies[replica] = results["energy"]
                forces[end - len(results["forces"]) : end] = results["forces"]
        return ForceBatch(energies, forces, errors)
