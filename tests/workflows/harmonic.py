"""Potentials whose dynamics are known in closed form."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes


class Harmonic(Calculator):
    """Every atom on a spring of its own: E = ½ Σ k |x − x₀|²."""

    implemented_properties = ("energy", "forces")

    def __init__(self, sites: np.ndarray, stiffness: float | np.ndarray) -> None:
        super().__init__()
        self.sites, self.stiffness = np.array(sites), stiffness

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        shift = atoms.positions - self.sites
        self.results = {
            "energy": 0.5 * float((self.stiffness * shift**2).sum()),
            "forces": -self.stiffness * shift,
        }


class LinearForces(Calculator):
    """F = J (x − x₀) with any matrix J; the energy is that of its symmetric part."""

    implemented_properties = ("energy", "forces")

    def __init__(self, sites: np.ndarray, jacobian: np.ndarray) -> None:
        super().__init__()
        self.sites, self.jacobian = np.array(sites), np.array(jacobian)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        shift = (atoms.positions - self.sites).ravel()
        forces = self.jacobian @ shift
        self.results = {
            "energy": -0.5 * float(shift @ forces),
            "forces": forces.reshape(-1, 3),
        }


class Scripted(Calculator):
    """No forces until a call, then what the script says: for runs that must end."""

    implemented_properties = ("energy", "forces")

    def __init__(self, *, after: int, forces: Any) -> None:
        super().__init__()
        self.after, self.forces, self.calls = after, forces, 0

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        self.calls += 1
        forces = np.zeros((len(atoms), 3))
        if self.calls > self.after:
            if isinstance(self.forces, Exception):
                raise self.forces
            forces[:] = self.forces
        self.results = {"energy": 0.0, "forces": forces}


class NoForces(Scripted):
    """An ideal gas."""

    def __init__(self) -> None:
        super().__init__(after=0, forces=0.0)
