"""Potentials in closed form, and molecules of them that sample in seconds."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from crack_md.calculators.replicas.state import ForceBatch

HYDROGEN_PEROXIDE = np.array([8, 8, 1, 1])


class Toy(Calculator):
    """Answers for one structure or for many, from a formula for arrays."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    n_batches = 0

    def energies_and_forces(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def calculate_many(
        self, structures: Sequence[Atoms], properties: Collection[str], **_: object
    ) -> list[dict[str, Any]]:
        self.n_batches += 1
        energies, forces = self.energies_and_forces(
            np.array([atoms.positions for atoms in structures])
        )
        return [
            {"energy": float(energy), "forces": force}
            for energy, force in zip(energies, forces, strict=True)
        ]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, list(properties), list(system_changes))
        assert self.atoms is not None
        energies, forces = self.energies_and_forces(self.atoms.positions[None])
        self.results = {"energy": float(energies[0]), "forces": forces[0]}


class Alone(Calculator):
    """The same potential without its gift to take many structures."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, toy: Toy) -> None:
        super().__init__()
        self.toy = toy

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        energies, forces = self.toy.energies_and_forces(self.atoms.positions[None])
        self.results = {"energy": float(energies[0]), "forces": forces[0]}


class Spring(Toy):
    """E = ½ k Σ |x|² for every atom: exact variances are known."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = k

    def energies_and_forces(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 0.5 * self.k * np.sum(x**2, axis=(1, 2)), -self.k * x


class Peroxide(Toy):
    """H2O2 of springs between all pairs, and a torsion with wells of chosen depth.

    E = Σ ½ k (d − d₀)² over bonds and 1–3 pairs, and over the H···H distance d
    a (d − d₁)² (d − d₂)² / w + tilt · (d − d₁)/(d₂ − d₁): near and far hydrogens.

    Args:
        barrier: eV between the wells.
        tilt: eV that the far well is higher than the near one.
        stiffness: of all springs, times what it is by default.
    """

    BONDS = ((0, 1, 25.0, 1.45), (0, 2, 30.0, 0.97), (1, 3, 30.0, 0.97))
    ANGLES = ((1, 2, 8.0, 1.90), (0, 3, 8.0, 1.90))
    NEAR, FAR = 2.05, 2.75

    def __init__(
        self, *, barrier: float = 0.04, tilt: float = 0.0, stiffness: float = 1.0
    ) -> None:
        super().__init__()
        self.barrier, self.tilt, self.stiffness = barrier, tilt, stiffness

    def forces(self, positions: np.ndarray) -> ForceBatch:
        """Return forces of replicas as a formula for arrays, without structures."""
        energies, forces = self.energies_and_forces(positions.reshape(-1, 4, 3))
        return ForceBatch(energies, forces.reshape(-1, 3))

    def energies_and_forces(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energy, forces = np.zeros(len(x)), np.zeros_like(x)
        for i, j, k, length in (*self.BONDS, *self.ANGLES):
            vector, d = self._pair(x, i, j)
            stretch = d - length
            energy += 0.5 * self.stiffness * k * stretch**2
            self._pull(forces, i, j, vector / d[:, None], k * self.stiffness * stretch)
        vector, d = self._pair(x, 2, 3)
        width, middle = 0.5 * (self.FAR - self.NEAR), 0.5 * (self.FAR + self.NEAR)
        u = (d - middle) / width
        energy += self.barrier * (u**2 - 1) ** 2 + 0.5 * self.tilt * u
        slope = (4 * self.barrier * u * (u**2 - 1) + 0.5 * self.tilt) / width
        self._pull(forces, 2, 3, vector / d[:, None], slope)
        return energy, forces

    @staticmethod
    def _pair(x: np.ndarray, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        vector = x[:, i] - x[:, j]
        return vector, np.linalg.norm(vector, axis=-1)

    @staticmethod
    def _pull(
        forces: np.ndarray, i: int, j: int, along: np.ndarray, slope: np.ndarray
    ) -> None:
        forces[:, i] -= slope[:, None] * along
        forces[:, j] += slope[:, None] * along


def peroxide_start(degrees: float = 110.0) -> np.ndarray:
    turn = np.radians(degrees)
    bend = np.radians(102.0)
    arm = 0.97 * np.array([np.sin(bend), 0.0, np.cos(bend)])
    far = 0.97 * np.array(
        [np.sin(bend) * np.cos(turn), np.sin(bend) * np.sin(turn), -np.cos(bend)]
    )
    o1, o2 = np.zeros(3), np.array([0.0, 0.0, 1.45])
    return np.array([o1, o2, o1 + arm, o2 + far])
