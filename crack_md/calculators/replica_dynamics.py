"""One step of many replicas: from one state to the next, blow-ups included."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from crack_md.calculators.batch_forces import BatchForces, ForceBatch
from crack_md.calculators.blow_up import blow_up_reasons
from crack_md.calculators.langevin import (
    Coefficients,
    drift_and_mix,
    generator,
    kick,
    maxwell_velocities,
)
from crack_md.calculators.replica_atoms import ReplicaAtoms
from crack_md.calculators.replica_state import BlowUp, ReplicaState
from crack_md.errors import StructureError

Atomic = Float[np.ndarray, "atom 3"]
PerReplica = Float[np.ndarray, " replica"]
Seeds = Int[np.ndarray, " replica"]


class ReplicaDynamics:
    """How replicas move; it has no state of its own.

    Args:
        atoms: of all replicas.
        step: coefficients of the integrator.
        forces: asked once per step.
        temperature_K: at which velocities are drawn, by replica.
        max_temperature_K: above which replicas have blown up.
        starts: positions that each replica may start again from.
    """

    def __init__(
        self,
        atoms: ReplicaAtoms,
        step: Coefficients,
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

    def advanced(self, old: ReplicaState) -> ReplicaState:
        """Return the state one step later."""
        number = old.step_count + 1
        with np.errstate(over="ignore", invalid="ignore"):  # blow-ups are found below
            velocities = kick(old.velocities, old.forces, self.step)
            noise = self._noise(old.seeds, number)
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
        return self._started_again(new, reasons) if reasons else new

    def refreshed(self, state: ReplicaState) -> ReplicaState:
        """Return the state with forces asked for again.

        Raises:
            StructureError: there are none on a replica.
        """
        answer = self._evaluate(state.positions, required=self._all)
        return state._replace(energies=answer.energies, forces=answer.forces)

    def _started_again(
        self, state: ReplicaState, reasons: Mapping[int, str]
    ) -> ReplicaState:
        """Return the state with some replicas at a start; all else stays."""
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

    def _noise(self, seeds: Seeds, number: int) -> Atomic:
        noise = np.zeros((len(self.atoms.owner), 3))
        for replica in self._all:
            if self._is_random[replica]:
                random = generator(int(seeds[replica]), number, "step")
                random.standard_normal(out=noise[self.atoms.rows(replica)])
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
