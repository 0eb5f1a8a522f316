"""Where a chain has left all that a student can learn from, and starts again.

False minima are what chains are there to find, so low energies have no bound. But once
a molecule has come apart, or holds more energy than heat gives it, its energy could be
raised for ever without any datum that speaks against it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import units
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.data.bonds import Bonds, bonded_pairs, broken_bond, distances
from crack_md.data.dataset import LabelledStructure

LARGEST_FORCE = 50.0
"""eV/Å; ten times what atoms feel at 500 K."""
SPREADS = 6.0
"""Energies so many standard deviations above the mean come once in 1e9 frames."""

Atomic = Float[NDArray[np.float64], "atom 3"]


def kind_of(frame: LabelledStructure) -> Hashable:
    """Return what frames share whose atoms are the same, in the same order."""
    return tuple(frame.atoms.numbers.tolist()), tuple(frame.atoms.pbc.tolist())


@dataclass(frozen=True)
class ChainBounds:
    """What the data of one kind say about its chains."""

    bonds: Bonds
    """None in periodic structures, where atoms change places."""
    bond_means: Float[NDArray[np.float64], " bond"]
    """Å."""
    energy_mean: float
    """eV, of the data."""
    thermal_spread: float
    """eV: √(n/2) kT of n oscillators, what equipartition expects."""
    highest_energy: float
    """eV."""

    @classmethod
    def of(
        cls, frames: Sequence[LabelledStructure], temperature_K: float
    ) -> "ChainBounds":
        """Return the bounds that frames of one kind set at their temperature."""
        atoms = frames[0].atoms
        positions = np.stack([frame.atoms.positions for frame in frames])
        is_molecule = not atoms.pbc.any()
        bonds = (
            bonded_pairs(atoms.numbers, positions)
            if is_molecule
            else np.empty((0, 2), dtype=np.int64)
        )
        n_modes = max(3 * int(frames[0].free.sum()) - (6 if is_molecule else 3), 1)
        thermal = float(np.sqrt(n_modes / 2)) * units.kB * temperature_K
        energies = np.array([frame.energy for frame in frames])
        mean = float(energies.mean())
        highest = mean + SPREADS * max(float(energies.std()), thermal)
        means = distances(positions, bonds).mean(axis=0)
        return cls(bonds, means, mean, thermal, highest)

    def broken(self, positions: Atomic, energy: float, forces: Atomic) -> str | None:
        """Return which bound a structure breaks, or None."""
        if energy > self.highest_energy:
            above = energy - self.energy_mean
            return f"{above:.2f} eV above the mean of the data"
        largest = float(np.linalg.norm(forces, axis=-1).max())
        if largest > LARGEST_FORCE:
            return f"a force of {largest:.0f} eV/Å"
        return broken_bond(positions, self.bonds, self.bond_means)
