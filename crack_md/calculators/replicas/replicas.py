"""Many replicas of molecular dynamics side by side: one batch of forces per step."""

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from jaxtyping import Float, Int

from crack_md.calculators.batched import BatchCalculator
from crack_md.calculators.replicas.dynamics import (
    CarriedDynamics,
    Dynamics,
    ReplicaDynamics,
    carrier_of,
)
from crack_md.calculators.replicas.langevin import Langevin, coefficients
from crack_md.calculators.replicas.state import (
    BatchForces,
    ReplicaAtoms,
    ReplicaState,
    as_arrays,
    forces_of,
    from_arrays,
    one_for_each,
)
from crack_md.errors import ConfigError

PerReplica = Float[np.ndarray, " replica"]


def max_temperatures(
    wanted: float | Sequence[float] | None,
    *,
    temperature_K: PerReplica,
    friction_per_ps: PerReplica,
    atoms: ReplicaAtoms,
) -> PerReplica:
    """Return the temperatures in K above which replicas have blown up.

    By default (3 + 30/f) times that of the bath, with f degrees of freedom: 13 times
    for one atom, 3.2 times for fifty. Thermal motion gets there once in 5e7 steps at
    most. There is no limit without a bath that gives the scale.
    """
    if wanted is not None:
        return one_for_each(wanted, atoms.n_replicas, "max_temperature_K")
    has_bath = (temperature_K > 0) & (friction_per_ps > 0)
    factor = np.where(has_bath, 3 + 30 / atoms.n_degrees, np.inf)
    return factor * np.where(has_bath, temperature_K, 1.0)


def start_positions(
    structures: Sequence[Atoms], frames: Sequence[Sequence[Atoms]] | None
) -> list[list[Float[np.ndarray, "_ 3"]]]:
    """Return what each replica may start again from: its start, or the frames given.

    Raises:
        ConfigError: frames are missing, or of other atoms.
    """
    if frames is None:
        return [[atoms.positions.copy()] for atoms in structures]
    if len(frames) != len(structures) or not all(len(some) for some in frames):
        raise ConfigError(
            f"restart_frames has frames for {sum(bool(len(some)) for some in frames)} "
            f"replicas, expected some for each of the {len(structures)}"
        )
    for replica, (atoms, some) in enumerate(zip(structures, frames, strict=True)):
        if any(not np.array_equal(one.numbers, atoms.numbers) for one in some):
            raise ConfigError(
                f"restart_frames of replica {replica} have other atoms than "
                f"{atoms.get_chemical_formula()}, or another order of them"
            )
    return [[one.positions.copy() for one in some] for some in frames]


class Replicas:
    """Langevin or NVE dynamics of many structures, alike or not, by BAOAB.

    Every step is one batch of forces. A replica moves as if it were alone: its noise
    depends on its seed and the number of the step, so what runs beside it changes its
    trajectory by the rounding of the forces at most. A replica that blows up (values
    that are not finite, a structure that the model refuses, too hot) starts again and
    is counted in `state`; the others do not notice.

    Atoms under `FixAtoms` do not move. The centre of mass is left alone: the bath acts
    on it as on all else, without a bath it drifts as it starts, and temperatures count
    three degrees of freedom for every atom that moves.

    Args:
        structures: one for each replica; their calculators are not used.
        calculator: `CrackCalculator`, `BatchEvaluator`, any ASE calculator (one call
            for each replica), or an object with the method of `BatchForces`.
        dynamics: temperatures, frictions, time step.
        seeds: one for each replica, or the first of consecutive ones.
        keep_velocities: start with the velocities of the structures instead of drawing
            them at the temperature of the bath.
        max_temperature_K: what is too hot, for all or for each; None takes what a bath
            does not reach by chance, (3 + 30/f) times its temperature for f degrees of
            freedom, and has no limit without a bath.
        restart_frames: what each replica starts again from, one of them at random; None
            takes its own start. Velocities are drawn.

    Raises:
        ConfigError: arguments that do not fit together, or constraints not supported.
        StructureError: there are no forces at the start of a replica.
    """

    def __init__(
        self,
        structures: Sequence[Atoms],
        calculator: BatchForces | BatchCalculator | BaseCalculator,
        dynamics: Langevin,
        *,
        seeds: int | Sequence[int] = 0,
        keep_velocities: bool = False,
        max_temperature_K: float | Sequence[float] | None = None,
        restart_frames: Sequence[Sequence[Atoms]] | None = None,
    ) -> None:
        atoms = ReplicaAtoms.of(structures)
        temperature_K, friction_per_ps = (
            one_for_each(getattr(dynamics, name), atoms.n_replicas, name)
            for name in ("temperature_K", "friction_per_ps")
        )
        forces = forces_of(structures, calculator)
        self.atoms = atoms
        self._structures = [one.copy() for one in structures]
        self._host = ReplicaDynamics(
            atoms,
            coefficients(
                atoms.per_atom(temperature_K),
                atoms.per_atom(friction_per_ps),
                atoms.inverse_mass,
                timestep_fs=dynamics.timestep_fs,
            ),
            forces,
            temperature_K=temperature_K,
            max_temperature_K=max_temperatures(
                max_temperature_K,
                temperature_K=temperature_K,
                friction_per_ps=friction_per_ps,
                atoms=atoms,
            ),
            starts=start_positions(structures, restart_frames),
        )
        self._dynamics: Dynamics = self._host
        carrier = carrier_of(
            calculator, structures, atoms, self._host.step, self._host.max_temperature_K
        )
        if carrier is not None:
            self._dynamics = CarriedDynamics(self._host, carrier)
        given = [one.get_velocities() for one in structures]
        self._state = self._host.started(
            np.concatenate([one.positions for one in structures]),
            np.concatenate(given) if keep_velocities else None,
            _seeds(seeds, atoms.n_replicas),
        )

    @property
    def state(self) -> ReplicaState:
        """Return where all replicas are; ``atoms.rows(i)`` are the atoms of one."""
        return self._state

    @property
    def temperatures(self) -> Float[np.ndarray, " replica"]:
        """Return the kinetic temperatures in K."""
        return self.atoms.temperatures(self._state.velocities)

    @property
    def kinetic_energies(self) -> Float[np.ndarray, " replica"]:
        """Return the kinetic energies in eV."""
        return self.atoms.kinetic_energies(self._state.velocities)

    @property
    def n_blow_ups(self) -> Int[np.ndarray, " replica"]:
        """Return how often each replica had to start again."""
        replicas = np.array([one.replica for one in self._state.blow_ups], dtype=int)
        return np.bincount(replicas, minlength=self.atoms.n_replicas)

    def run(self, n_steps: int) -> None:
        """Take some steps; an error or Ctrl-C leaves one of the last whole steps."""
        while n_steps > 0:
            count = min(n_steps, self._dynamics.stretch)
            self._state = self._dynamics.advance(self._state, count)
            n_steps -= count

    def restart(self, reasons: Mapping[int, str]) -> None:
        """Count these replicas as blown up and let them start again.

        Raises:
            StructureError: there are no forces on what they start from.
        """
        self._state = self._host.start_again(self._state, reasons)

    def structures(self) -> list[Atoms]:
        """Return the replicas as they are, with velocities, energies and forces."""
        found, state = [], self._state
        for replica, original in enumerate(self._structures):
            rows, atoms = self.atoms.rows(replica), original.copy()
            atoms.positions = state.positions[rows]
            atoms.set_velocities(state.velocities[rows])
            atoms.calc = SinglePointCalculator(
                atoms,
                energy=float(state.energies[replica]),
                forces=state.forces[rows].copy(),
            )
            found.append(atoms)
        return found

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return all that is needed to go on bit for bit, as plain arrays."""
        return as_arrays(self._state)

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from a state of replicas of the same structures and dynamics.

        Raises:
            DataError: it is one of other structures.
        """
        self._state = from_arrays(arrays, like=self._state)


def _seeds(seeds: int | Sequence[int], n_replicas: int) -> Int[np.ndarray, " replica"]:
    listed = [seeds + i for i in range(n_replicas)] if isinstance(seeds, int) else seeds
    if len(listed) != n_replicas or min(listed) < 0:
        raise ConfigError(
            f"seeds is {seeds}; expected an integer of 0 or more, or {n_replicas}: one "
            "for each replica"
        )
    return np.array(listed, dtype=np.int64)
