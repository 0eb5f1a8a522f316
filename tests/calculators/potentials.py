"""Potentials with exact averages, as forces on replicas and as an ASE calculator."""

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from scipy.integrate import quad


class Trap:
    """U = k/2 r² + q/4 r⁴ for every atom on its own; k in eV/Å², q in eV/Å⁴."""

    def __init__(self, sizes: Sequence[int], *, k: float = 1.0, q: float = 0.0) -> None:
        self.first = np.cumsum(sizes) - np.array(sizes)
        self.k, self.q = k, q
        self.n_calls = 0

    def atom_energies(self, positions: np.ndarray) -> np.ndarray:
        squares = (positions**2).sum(axis=1)
        return self.k / 2 * squares + self.q / 4 * squares**2

    def forces(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.n_calls += 1
        squares = (positions**2).sum(axis=1, keepdims=True)
        energies = np.add.reduceat(self.atom_energies(positions), self.first)
        return energies, -(self.k + self.q * squares) * positions

    def moments(self, temperature_K: float) -> tuple[float, float]:
        """Return mean and variance of the energy of one atom, by quadrature."""
        beta = 1 / (units.kB * temperature_K)

        def mean_of(value: Callable[[float], float]) -> float:
            def weighted(r: float) -> float:
                energy = self.k / 2 * r**2 + self.q / 4 * r**4
                return r**2 * np.exp(-beta * energy) * value(energy)

            return quad(weighted, 0, 20, limit=200)[0]

        norm = mean_of(lambda _: 1.0)
        mean = mean_of(lambda energy: energy) / norm
        return mean, mean_of(lambda energy: energy**2) / norm - mean**2


class TrapCalculator(Calculator):
    """The trap for ASE."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, *, k: float = 1.0, q: float = 0.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.k, self.q = k, q

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        trap = Trap([len(self.atoms)], k=self.k, q=self.q)
        energies, forces = trap.forces(self.atoms.positions)
        self.results = {"energy": float(energies[0]), "forces": forces}
