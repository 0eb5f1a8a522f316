"""The atoms of many replicas in one row: who owns them, and which of them move."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms
from jaxtyping import Float, Int

from crack_md.errors import ConfigError


@dataclass(frozen=True)
class ReplicaAtoms:
    """What does not change while replicas move.

    Attributes:
        first: the first atom of every replica.
        owner: the replica of every atom.
        inverse_mass: in 1/u; 0 for atoms held by `FixAtoms`.
        n_degrees: three for each atom that moves, by replica.
    """

    first: Int[np.ndarray, " replica"]
    owner: Int[np.ndarray, " atom"]
    inverse_mass: Float[np.ndarray, "atom 1"]
    n_degrees: Int[np.ndarray, " replica"]

    @classmethod
    def of(cls, structures: Sequence[Atoms]) -> "ReplicaAtoms":
        """Return the atoms of some structures.

        Raises:
            ConfigError: no structure, a constraint that is not `FixAtoms`, a replica in
                which nothing moves, or a mass that is not positive.
        """
        if not structures:
            raise ConfigError("no structures; expected one for each replica")
        sizes = np.array([len(atoms) for atoms in structures])
        inverse = [_inverse_mass(atoms, i) for i, atoms in enumerate(structures)]
        n_degrees = np.array([3 * np.count_nonzero(one) for one in inverse])
        return cls(
            first=np.cumsum(sizes) - sizes,
            owner=np.repeat(np.arange(len(sizes)), sizes),
            inverse_mass=np.concatenate(inverse)[:, None],
            n_degrees=n_degrees,
        )

    @property
    def n_replicas(self) -> int:
        """Return the number of replicas."""
        return len(self.first)

    def rows(self, replica: int) -> slice:
        """Return where the atoms of a replica are."""
        ends = np.append(self.first, len(self.owner))
        return slice(int(ends[replica]), int(ends[replica + 1]))

    def per_atom(
        self, values: Float[np.ndarray, " replica"]
    ) -> Float[np.ndarray, "atom 1"]:
        """Return what holds for a replica, for each of its atoms."""
        return values[self.owner][:, None]

    def kinetic_energies(
        self, velocities: Float[np.ndarray, "atom 3"]
    ) -> Float[np.ndarray, " replica"]:
        """Return Σ m v²/2 in eV; velocities are in ASE's units."""
        moving = self.inverse_mass > 0
        squares = (velocities**2).sum(axis=1, keepdims=True)
        energies = np.divide(
            squares, 2 * self.inverse_mass, where=moving, out=np.zeros_like(squares)
        )
        return np.add.reduceat(energies[:, 0], self.first)

    def temperatures(
        self, velocities: Float[np.ndarray, "atom 3"]
    ) -> Float[np.ndarray, " replica"]:
        """Return the kinetic temperatures in K of all atoms that move."""
        return 2 * self.kinetic_energies(velocities) / (self.n_degrees * units.kB)

    def are_finite(
        self, values: Float[np.ndarray, "atom 3"]
    ) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return for which replicas all values are finite."""
        return np.logical_and.reduceat(np.isfinite(values).all(axis=1), self.first)


def one_for_each(
    values: float | Sequence[float], n_replicas: int, name: str
) -> Float[np.ndarray, " replica"]:
    """Return one number for each replica, from one for all or from just these.

    Raises:
        ConfigError: another number of them, or negative ones.
    """
    array = np.asarray(values, dtype=float)
    if array.shape not in {(), (n_replicas,)} or not (array >= 0).all():
        raise ConfigError(
            f"{name} is {values}; expected a number of 0 or more, or {n_replicas}: one "
            "for each replica"
        )
    return np.broadcast_to(array, n_replicas).copy()


def _inverse_mass(atoms: Atoms, replica: int) -> Float[np.ndarray, " atom"]:
    masses = atoms.get_masses()
    if not len(atoms) or not (masses > 0).all():
        raise ConfigError(
            f"replica {replica} ({atoms.get_chemical_formula() or 'empty'}) needs "
            "atoms with positive masses to move"
        )
    inverse = 1 / masses
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms):
            raise ConfigError(
                f"replica {replica} has the constraint {type(constraint).__name__}; "
                "replicas know FixAtoms only: remove it, or run it with ase.md"
            )
        inverse[constraint.index] = 0
    if not inverse.any():
        raise ConfigError(
            f"all atoms of replica {replica} are fixed; free some of them"
        )
    return inverse
