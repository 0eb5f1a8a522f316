"""Many replicas of molecular dynamics side by side: one batch of forces per step."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from jaxtyping import Float, Int

from crack_md.calculators.batch_forces import BatchForces, CalculatorForces
from crack_md.calculators.batched import BatchCalculator
from crack_md.calculators.blow_up import max_temperatures, start_positions
from crack_md.calculators.langevin import Langevin, coefficients
from crack_md.calculators.replica_atoms import ReplicaAtoms, one_for_each
from crack_md.calculators.replica_dynamics import ReplicaDynamics
from crack_md.calculators.replica_state import ReplicaState, as_arrays, from_arrays
from crack_md.errors import ConfigError


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
        # ASE's EMT keeps an array of this name once it has been used
        is_formula = isinstance(calculator, BatchForces) and callable(calculator.forces)
        forces = (
            cast(BatchForces, calculator)
            if is_formula
            else CalculatorForces(structures, cast(BaseCalculator, calculator))
        )
        self.atoms = atoms
        self._structures = [one.copy() for one in structures]
        self._dynamics = ReplicaDynamics(
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
        given = [one.get_velocities() for one in structures]
        self._state = self._dynamics.started(
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
        """Take some steps; an error or Ctrl-C leaves the last whole step."""
        for _ in range(n_steps):
            self._state = self._dynamics.advanced(self._state)

    def refresh(self) -> None:
        """Ask for the forces again: the model behind them has changed.

        Raises:
            StructureError: there are none on some replica.
        """
        self._state = self._dynamics.refreshed(self._state)

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
