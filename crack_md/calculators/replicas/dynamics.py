"""How replicas move: step by step on the host, or several steps on a device."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int

from crack_md.calculators.replicas.langevin import (
    Coefficients,
    NoiseSource,
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
)
from crack_md.errors import StructureError

if TYPE_CHECKING:
    from crack_md.calculators.replicas.on_device import Carrier

PerReplica = Float[np.ndarray, " replica"]
Atomic = Float[np.ndarray, "atom 3"]
Seeds = Int[np.ndarray, " replica"]
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
