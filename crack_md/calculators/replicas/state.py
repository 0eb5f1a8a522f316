"""State of many replicas: their atoms in one row, their forces, their form on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator, CalculationFailed
from ase.constraints import FixAtoms
from jaxtyping import Float, Int

from crack_md.calculators.batched import BatchCalculator, Trajectory, calculate_each
from crack_md.errors import ConfigError, DataError, StructureError

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


def forces_of(
    structures: Sequence[Atoms],
    calculator: BatchForces | BatchCalculator | BaseCalculator,
) -> BatchForces:
    """Return what gives forces on replicas: the calculator, or what it has for them.

    Args:
        structures: what the replicas are.
        calculator: its method ``replica_forces``, where it has one, may return a faster
            way for just these structures, or None.
    """
    # ASE's EMT keeps an array of the name "forces" once it has been used
    if isinstance(calculator, BatchForces) and callable(calculator.forces):
        return calculator
    own = getattr(calculator, "replica_forces", None)
    found: BatchForces | None = own(structures) if callable(own) else None
    if found is not None:
        return found
    return CalculatorForces(structures, cast(BaseCalculator, calculator))


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


class Motion(NamedTuple):
    """Where replicas are after a whole step; the atoms of all follow each other."""

    positions: Float[np.ndarray, "atom 3"]
    """Å."""
    velocities: Float[np.ndarray, "atom 3"]
    """In ASE's units."""
    energies: Float[np.ndarray, " replica"]
    """eV."""
    forces: Float[np.ndarray, "atom 3"]
    """eV/Å."""


class Carried(NamedTuple):
    """Where replicas are some steps later, and what they met on the way."""

    motion: Motion
    heat: Float[np.ndarray, " replica"]
    """eV that the bath has put in."""
    nearest: float | None
    """How near atoms came, measured by training, where that is known."""


class BlowUp(NamedTuple):
    """A replica that had to start again."""

    replica: int
    step: int
    reason: str


class ReplicaState(NamedTuple):
    """Replicas after a whole step; never changed in place."""

    positions: Float[np.ndarray, "atom 3"]
    """Å; not wrapped. The atoms of all replicas follow each other."""
    velocities: Float[np.ndarray, "atom 3"]
    """In ASE's units."""
    energies: Float[np.ndarray, " replica"]
    """eV."""
    forces: Float[np.ndarray, "atom 3"]
    """eV/Å."""
    seeds: Int[np.ndarray, " replica"]
    step_count: int
    steps_since_start: Int[np.ndarray, " replica"]
    """Steps since each replica started, or started again."""
    blow_ups: tuple[BlowUp, ...]


ARRAYS = ("positions", "velocities", "energies", "forces", "seeds", "steps_since_start")


def as_arrays(state: ReplicaState) -> dict[str, np.ndarray]:
    """Return a state as plain arrays, which `numpy.savez` takes."""
    events = state.blow_ups
    return {
        **{name: getattr(state, name).copy() for name in ARRAYS},
        "step_count": np.array(state.step_count),
        "blow_up_replica": np.array([event.replica for event in events], dtype=int),
        "blow_up_step": np.array([event.step for event in events], dtype=int),
        "blow_up_reason": np.array([event.reason for event in events], dtype=str),
    }


def from_arrays(
    arrays: Mapping[str, np.ndarray], *, like: ReplicaState
) -> ReplicaState:
    """Return the state that was made into arrays.

    Raises:
        DataError: it is none of replicas like these.
    """
    found = {}
    for name in ARRAYS:
        expected = getattr(like, name)
        shape = np.shape(arrays[name]) if name in arrays else "nothing"
        if shape != expected.shape:
            raise DataError(
                f"the state holds {shape} for {name}, expected {expected.shape}; it is "
                "one of other replicas"
            )
        found[name] = np.array(arrays[name], dtype=expected.dtype)
    columns = (arrays[f"blow_up_{name}"] for name in BlowUp._fields)
    blow_ups = tuple(
        BlowUp(int(replica), int(step), str(reason))
        for replica, step, reason in zip(*columns, strict=True)
    )
    return ReplicaState(
        **found, step_count=int(arrays["step_count"]), blow_ups=blow_ups
    )
