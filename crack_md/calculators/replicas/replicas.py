"""Many replicas of molecular dynamics side by side: one batch of forces per step."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from jaxtyping import Float, Int

from crack_md.calculators.batched import BatchCalculator
from crack_md.calculators.replicas.langevin import (
    Coefficients,
    Langevin,
    NoiseSource,
    coefficients,
    drift_and_mix,
    generator,
    kick,
    maxwell_velocities,
)
from crack_md.calculators.replicas.state import (
    BatchForces,
    BlowUp,
    ForceBatch,
    Motion,
    ReplicaAtoms,
    ReplicaState,
    as_arrays,
    forces_of,
    from_arrays,
    one_for_each,
)
from crack_md.errors import ConfigError, StructureError

if TYPE_CHECKING:
    from crack_md.calculators.replicas.on_device import Carrier

PerReplica = Float[np.ndarray, " replica"]
STRETCH = 10
"""Steps from one look of the host at a device to the next."""


def carrier_of(
    calculator: Any,
    structures: Sequence[Atoms],
    atoms: ReplicaAtoms,
    step: Coefficients[np.ndarray],
    max_temperature_K: PerReplica,
) -> "Carrier | None":
    """Return what moves structures on the calculator's device, where it can.

    Args:
        calculator: its method ``carrier``, where it has one, may return None.
        structures: of all replicas.
        atoms: likewise.
        step: coefficients of the integrator.
        max_temperature_K: above which a replica is not carried on.
    """
    own = getattr(calculator, "carrier", None)
    found: Carrier | None = (
        own(structures, atoms, step, max_temperature_K) if callable(own) else None
    )
    return found


def blow_up_reasons(
    positions: Float[np.ndarray, "atom 3"],
    velocities: Float[np.ndarray, "atom 3"],
    answer: ForceBatch,
    *,
    atoms: ReplicaAtoms,
    max_temperature_K: PerReplica,
) -> dict[int, str]:
    """Return why replicas have blown up, for those that have."""
    limit = max_temperature_K
    finite = np.isfinite(answer.energies)
    for values in (positions, velocities, answer.forces):
        finite &= atoms.are_finite(values)
    temperatures = atoms.temperatures(velocities)
    bad = ~finite | (temperatures > limit)
    reasons: dict[int, str] = dict(answer.errors)
    for replica in np.flatnonzero(bad).tolist():
        reasons.setdefault(
            replica,
            f"{temperatures[replica]:.0f} K, above {limit[replica]:.0f} K"
            if finite[replica]
            else "positions, energy or forces are not finite",
        )
    return reasons


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


Atomic = Float[np.ndarray, "atom 3"]
Seeds = Int[np.ndarray, " replica"]


class Dynamics(Protocol):
    """Takes replicas from one state to a later one."""

    stretch: int
    """How many steps it takes at a time."""

    def advance(self, old: ReplicaState, n_steps: int) -> ReplicaState:
        """Return the state some steps later."""
        ...


class ReplicaDynamics:
    """How replicas move, one step at a time; it has no state of its own.

    Args:
        atoms: of all replicas.
        step: coefficients of the integrator.
        forces: asked once per step.
        temperature_K: at which velocities are drawn, by replica.
        max_temperature_K: above which replicas have blown up.
        starts: positions that each replica may start again from.
    """

    stretch = 1

    def __init__(
        self,
        atoms: ReplicaAtoms,
        step: Coefficients[np.ndarray],
        forces: BatchForces,
        *,
        temperature_K: PerReplica,
        max_temperature_K: PerReplica,
        starts: Sequence[Sequence[Float[np.ndarray, "_ 3"]]],
    ) -> None:
        self.atoms, self.step, self.forces = atoms, step, forces
        self.temperature_K = temperature_K
        self.max_temperature_K = max_temperature_K
        self.starts = starts
        self._source = NoiseSource()
        self._is_random = [bool(step.noise[atoms.rows(i)].any()) for i in self._all]

    def started(
        self, positions: Atomic, velocities: Atomic | None, seeds: Seeds
    ) -> ReplicaState:
        """Return the first state; velocities are drawn where there are none.

        Raises:
            StructureError: there are no forces on a replica.
        """
        if velocities is None:
            drawn = [self._velocities(seeds, replica, 0) for replica in self._all]
            velocities = np.concatenate(drawn)
        answer = self._evaluate(positions, required=self._all)
        return ReplicaState(
            positions=positions,
            velocities=np.where(self.atoms.inverse_mass > 0, velocities, 0.0),
            energies=answer.energies,
            forces=answer.forces,
            seeds=seeds,
            step_count=0,
            steps_since_start=np.zeros(len(seeds), dtype=int),
            blow_ups=(),
        )

    @property
    def is_random(self) -> bool:
        """Return whether noise acts on any replica."""
        return any(self._is_random)

    def advance(self, old: ReplicaState, n_steps: int) -> ReplicaState:
        """Return the state some steps later."""
        for _ in range(n_steps):
            old = self._one_step(old)
        return old

    def _one_step(self, old: ReplicaState) -> ReplicaState:
        number = old.step_count + 1
        with np.errstate(over="ignore", invalid="ignore"):  # blow-ups are found below
            velocities = kick(old.velocities, old.forces, self.step)
            noise = self.noise(old.seeds, number)
            positions, velocities = drift_and_mix(
                old.positions, velocities, noise, self.step
            )
            answer = self._evaluate(positions)
            velocities = kick(velocities, answer.forces, self.step)
            reasons = blow_up_reasons(
                positions,
                velocities,
                answer,
                atoms=self.atoms,
                max_temperature_K=self.max_temperature_K,
            )
        new = old._replace(
            positions=positions,
            velocities=velocities,
            energies=answer.energies,
            forces=answer.forces,
            step_count=number,
            steps_since_start=old.steps_since_start + 1,
        )
        return self.start_again(new, reasons) if reasons else new

    def start_again(
        self, state: ReplicaState, reasons: Mapping[int, str]
    ) -> ReplicaState:
        """Return the state with some replicas at a start; all else stays.

        Raises:
            StructureError: there are no forces on a start.
        """
        number, places = state.step_count, sorted(reasons)
        positions, velocities = state.positions.copy(), state.velocities.copy()
        energies, forces = state.energies.copy(), state.forces.copy()
        for replica in places:
            rows, starts = self.atoms.rows(replica), self.starts[replica]
            random = generator(int(state.seeds[replica]), number, "start")
            positions[rows] = starts[int(random.integers(len(starts)))]
            velocities[rows] = self._velocities(state.seeds, replica, number)
        answer = self._evaluate(positions, required=places)
        ages = state.steps_since_start.copy()
        for replica in places:
            rows = self.atoms.rows(replica)
            energies[replica], ages[replica] = answer.energies[replica], 0
            forces[rows] = answer.forces[rows]
        events = [BlowUp(replica, number, reasons[replica]) for replica in places]
        return state._replace(
            positions=positions,
            velocities=velocities,
            energies=energies,
            forces=forces,
            steps_since_start=ages,
            blow_ups=(*state.blow_ups, *events),
        )

    @property
    def _all(self) -> range:
        return range(self.atoms.n_replicas)

    def _velocities(self, seeds: Seeds, replica: int, number: int) -> Atomic:
        return maxwell_velocities(
            self.temperature_K[replica],
            self.atoms.inverse_mass[self.atoms.rows(replica)],
            generator(int(seeds[replica]), number, "velocities"),
        )

    def noise(self, seeds: Seeds, number: int) -> Atomic:
        """Return the standard normal numbers of a step; 0 where there is no bath."""
        noise = np.zeros((len(self.atoms.owner), 3))
        for replica in self._all:
            if self._is_random[replica]:
                rows = self.atoms.rows(replica)
                self._source.fill(int(seeds[replica]), number, noise[rows])
        return noise

    def _evaluate(
        self, positions: Atomic, *, required: Collection[int] = ()
    ) -> ForceBatch:
        answer = ForceBatch(*self.forces.forces(positions))
        finite = np.isfinite(answer.energies) & self.atoms.are_finite(answer.forces)
        for replica in required:
            if not finite[replica]:
                reason = answer.errors.get(replica, "energy or forces are not finite")
                raise StructureError(f"replica {replica} cannot start: {reason}")
        return answer


class CarriedDynamics:
    """Replicas that a device moves several steps at a time, and the host in between.

    Args:
        host: the same dynamics, step by step.
        carrier: what moves them on the device.
    """

    stretch = STRETCH

    def __init__(self, host: ReplicaDynamics, carrier: "Carrier") -> None:
        self.host, self.carrier = host, carrier
        self._last: tuple[ReplicaState, Motion] | None = None

    def advance(self, old: ReplicaState, n_steps: int) -> ReplicaState:
        """Return the state some steps later."""
        noise = None
        if self.host.is_random:
            numbers = range(old.step_count + 1, old.step_count + 1 + n_steps)
            noise = np.stack([self.host.noise(old.seeds, number) for number in numbers])
        found = self.carrier.carry(self._motion(old), n_steps, noise=noise)
        if found is None:
            return self.host.advance(old, n_steps)
        new = old._replace(
            **found.motion._asdict(),
            step_count=old.step_count + n_steps,
            steps_since_start=old.steps_since_start + n_steps,
        )
        self._last = new, found.motion
        return new

    def _motion(self, state: ReplicaState) -> Motion:
        if self._last is not None and self._last[0] is state:
            return self._last[1]  # which the device has
        return Motion(state.positions, state.velocities, state.energies, state.forces)


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
