"""Any ASE calculator as a teacher of energies and forces."""

import hashlib
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from crack_md.errors import TeacherError
from crack_md.models.teachers.base import TeacherLabels, as_periodic, check_elements


class AseTeacher:
    """Labels from an ASE calculator; it has no node features.

    Losses on features (crack, n2n) need a teacher that has them and refuse this one.

    Args:
        calculator: Any calculator with energy and forces.
        name: How datasets call it.
        elements: Atomic numbers it knows, if it can say.
    """

    has_features = False
    energy_reference = "total"

    def __init__(
        self,
        calculator: Calculator,
        *,
        name: str | None = None,
        elements: frozenset[int] | None = None,
    ) -> None:
        self.calculator = calculator
        self.name = name or type(calculator).__name__.lower()
        identity = f"{type(calculator).__module__}.{self.name}:{calculator.todict()}"
        self.sha256 = hashlib.sha256(identity.encode()).hexdigest()
        self.elements = elements

    def predict(self, atoms: Sequence[Atoms]) -> list[TeacherLabels]:
        """Return energies and forces of every structure."""
        for one in atoms:
            check_elements(one, self)
        return [self._predict_one(as_periodic(one)) for one in atoms]

    def _predict_one(self, atoms: Atoms) -> TeacherLabels:
        atoms.calc = self.calculator
        try:
            forces = np.array(atoms.get_forces(), dtype=np.float64)
            energy = float(atoms.get_potential_energy())
        except (NotImplementedError, RuntimeError) as error:
            raise TeacherError(
                f"the teacher {self.name} fails on {atoms.get_chemical_formula()}: "
                f"{error}; leave this structure out or choose another teacher"
            ) from error
        return TeacherLabels(energy, forces, node_energy=_node_energy(atoms, energy))


def _node_energy(atoms: Atoms, energy: float) -> NDArray[np.float64] | None:
    """Return the energies of atoms where the calculator splits its energy so."""
    if "energies" not in atoms.calc.implemented_properties:
        return None
    try:
        atomic = np.array(atoms.get_potential_energies(), dtype=np.float64)
    except (NotImplementedError, RuntimeError):
        return None
    return atomic if np.isclose(atomic.sum(), energy, rtol=1e-6) else None
