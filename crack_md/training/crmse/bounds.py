"""What data say about chains: bonds that hold, energies that heat gives.

False minima are what chains are there to find, so low energies have no bound. But once
a molecule has come apart, or holds more energy than heat gives it, its energy could be
raised for ever without any datum that speaks against it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import units
from jaxtyping import Bool, Float

from crack_md.data.bonds import (
    BLOW_UP_A,
    Bonds,
    bonded_pairs,
    broken_bond,
    distances,
)
from crack_md.data.dataset import LabelledStructure

SPREADS = 6.0
"""Energies so many standard deviations above the mean come once in 1e9 frames."""

Atomic = Float[np.ndarray, "atom 3"]


def kind_of(frame: LabelledStructure) -> Hashable:
    """Return what frames share whose atoms are the same, in the same order."""
    return tuple(frame.atoms.numbers.tolist()), tuple(frame.atoms.pbc.tolist())


@dataclass(frozen=True, eq=False)
class ChainBounds:
    """What the data of one kind say about its chains."""

    bonds: Bonds
    """None in periodic structures, where atoms change places."""
    bond_means: Float[np.ndarray, " bond"]
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

    def are_broken(
        self,
        frames: Float[np.ndarray, "frame atom 3"],
        energies: Float[np.ndarray, " frame"],
    ) -> Bool[np.ndarray, " frame"]:
        """Return which structures break a bound."""
        off = np.abs(distances(frames, self.bonds) - self.bond_means)
        return (energies > self.highest_energy) | (off > BLOW_UP_A).any(axis=1)

    def broken(self, positions: Atomic, energy: float) -> str | None:
        """Return which bound a structure breaks, or None."""
        if energy > self.highest_energy:
            above = energy - self.energy_mean
            return f"{above:.2f} eV above the mean of the data"
        return broken_bond(positions, self.bonds, self.bond_means)
