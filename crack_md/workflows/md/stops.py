"""Rules that end a run: values not finite, too hot, broken bonds."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.special import chdtri

from crack_md.workflows.surfaces.slab import NONMETALS

HOT_FACTOR = 3.0
HOT_CHANCE = 1e-12
"""A few atoms reach three times their temperature by chance, but not this seldom."""
BOND_SCALE = 1.25
BROKEN_SCALE = 1.75
"""In sums of covalent radii. Bonds of metals come and go; those of nonmetals stay."""
ALONE_SCALE = 2.5


class StopReason(NamedTuple):
    """Why a run ended before its time."""

    status: str
    """``not_finite``, ``too_hot``, ``broken_bonds`` or ``calculator_failed``."""
    reason: str


@dataclass(frozen=True, eq=False)
class StopRules:
    """What is watched, fixed by the structure at the start."""

    max_temperature_K: float
    bonds: NDArray[np.int_]
    """(bond, 2) pairs of nonmetal atoms that are bonded at the start."""
    bonded: NDArray[np.int_]
    """Atoms that have a neighbor at the start."""
    watches_bonds: bool

    @classmethod
    def for_run(
        cls, atoms: Atoms, *, temperature_K: float, dof: int, watches_bonds: bool
    ) -> "StopRules":
        """Return the rules for a run that starts with these atoms."""
        chance = float(chdtri(dof, HOT_CHANCE)) / dof
        first, second = _pairs(atoms, BOND_SCALE)
        covalent = np.isin(atoms.numbers, _nonmetals())
        stays = covalent[first] & covalent[second] & (first < second)
        near, _ = _pairs(atoms, ALONE_SCALE)
        return cls(
            max(HOT_FACTOR, chance) * temperature_K,
            np.stack([first, second], axis=1)[stays],
            np.unique(near),
            watches_bonds,
        )

    def check_state(self, atoms: Atoms, temperature_K: float) -> StopReason | None:
        """Return why to stop, from what every step has at hand."""
        energy, forces = atoms.get_potential_energy(), atoms.get_forces(md=True)
        positions = np.isfinite(atoms.positions).all()
        if not (np.isfinite(energy) and np.isfinite(forces).all() and positions):
            return StopReason(
                "not_finite", "an energy, force or position is not finite"
            )
        if temperature_K > self.max_temperature_K:
            return StopReason(
                "too_hot",
                f"the temperature is {temperature_K:.0f} K, above "
                f"{self.max_temperature_K:.0f} K; a shorter time step may help, or "
                "the structure is outside what the model can describe",
            )
        return None

    def check_bonds(self, atoms: Atoms) -> StopReason | None:
        """Return why to stop, from the distances between atoms."""
        if not self.watches_bonds:
            return None
        for i, j in self.bonds:
            length = atoms.get_distance(int(i), int(j), mic=True)
            limit = BROKEN_SCALE * covalent_radii[atoms.numbers[[i, j]]].sum()
            if length > limit:
                names = " and ".join(f"{atoms.symbols[k]} (atom {k})" for k in (i, j))
                return StopReason(
                    "broken_bonds",
                    f"the bond of {names} is {length:.2f} Å long (limit {limit:.2f} Å)",
                )
        near, _ = _pairs(atoms, ALONE_SCALE)
        gone = np.setdiff1d(self.bonded, near)
        if len(gone):
            names = ", ".join(f"{atoms.symbols[k]} (atom {k})" for k in gone)
            return StopReason("broken_bonds", f"{names} left all other atoms")
        return None


def _pairs(atoms: Atoms, scale: float) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return the pairs closer than ``scale`` times the sum of covalent radii."""
    cutoffs = [scale * covalent_radii[number] for number in atoms.numbers]
    first, second = neighbor_list("ij", atoms, cutoffs)
    return first, second


def _nonmetals() -> list[int]:
    return [chemical_symbols.index(symbol) for symbol in NONMETALS]
