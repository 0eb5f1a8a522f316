"""Dynamics whose state stays on the device of the model for several steps.

The steps are those of `langevin`, on tensors: positions, velocities, neighbors and
forces do not come to the host in between. It sees them after `STRETCH` steps, in one
copy that also says whether all went well; if not, the host takes the same steps itself,
one by one, and deals with what is wrong.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from ase import Atoms, units
from jaxtyping import Bool, Float
from torch import Tensor

from crack_md.calculators.batch_size import AtomLimit, count_in_batch
from crack_md.calculators.packaged import Engine
from crack_md.calculators.replicas.langevin import Coefficients, drift_and_mix, kick
from crack_md.calculators.replicas.replicas import ReplicaDynamics
from crack_md.calculators.replicas.state import ReplicaState
from crack_md.neighbors import SmoothNeighbors
from crack_md.neighbors.on_device import DeviceNeighbors

if TYPE_CHECKING:
    from crack_md.calculators.evaluator import NearWatch

STRETCH = 10
"""Steps from one look of the host to the next."""
RESERVE = 1.5
"""How much faster than now an atom may become within a stretch."""


class Motion(NamedTuple):
    """Where all replicas are, on the device."""

    positions: Float[Tensor, "atom 3"]
    velocities: Float[Tensor, "atom 3"]
    energies: Float[Tensor, " replica"]
    forces: Float[Tensor, "atom 3"]


class DeviceDynamics:
    """Moves replicas by a model, several steps at a time.

    Args:
        host: the same dynamics, step by step.
        engine: of the model.
        structures: what the replicas are.
        skin: of the neighbor lists, in Å.
        limit: how many atoms share a pass; the host moves more than that.
        near: watches how near atoms are.
    """

    stretch = STRETCH

    def __init__(
        self,
        host: ReplicaDynamics,
        engine: Engine,
        structures: Sequence[Atoms],
        *,
        skin: float,
        limit: AtomLimit,
        near: "NearWatch",
    ) -> None:
        model = engine.model
        assert isinstance(model.rule, SmoothNeighbors)
        self._host, self._engine = host, engine
        self._limit, self._near = limit, near
        self._device = model.device
        self.neighbors = DeviceNeighbors(
            structures, model.rule, skin, dtype=model.dtype, device=model.device
        )
        self.n_taken_back = 0
        """How many stretches the host has repeated."""
        self._kept: tuple[ReplicaState, Motion] | None = None
        atoms, step = host.atoms, host.step
        self._step = Coefficients(
            step.timestep,
            self._tensor(step.inverse_mass),
            self._tensor(step.decay),
            self._tensor(step.noise),
        )
        self._owner = self._tensor(atoms.owner)
        moves = atoms.inverse_mass > 0
        mass = np.divide(1, atoms.inverse_mass, where=moves, out=np.zeros(moves.shape))
        self._heat = self._tensor(
            mass / (atoms.n_degrees[atoms.owner] * units.kB)[:, None]
        )
        """m / (f k): v² times this adds up to temperatures."""
        self._max_temperature_K = self._tensor(host.max_temperature_K)

    def advance(self, old: ReplicaState, n_steps: int) -> ReplicaState:
        """Return the state some steps later."""
        new = self._moved(old, n_steps)
        return self._host.advance(old, n_steps) if new is None else new

    def _moved(self, old: ReplicaState, n_steps: int) -> ReplicaState | None:
        """Return the state some steps later; None if something went wrong."""
        try:
            self._prepare(old, n_steps)
            if not self._fits():
                return None
            with torch.no_grad():
                new = self._carried(old, n_steps)
        except Exception:  # the host meets it again, and says which replica it is of
            new = None
        self.n_taken_back += new is None
        return new

    def _prepare(self, old: ReplicaState, n_steps: int) -> None:
        fastest = np.linalg.norm(old.velocities, axis=1).max()
        ahead = RESERVE * float(fastest) * n_steps * self._step.timestep
        if not self.neighbors.will_last(old.positions, ahead):
            self.neighbors.renew(old.positions)

    def _fits(self) -> bool:
        """Return whether all replicas go into one pass of the model."""
        sizes = np.bincount(self._host.atoms.owner).tolist()
        limit = self._limit.atoms(self.neighbors.widest)
        return count_in_batch(sizes, limit) == len(sizes)

    def _carried(self, old: ReplicaState, n_steps: int) -> ReplicaState | None:
        now = self._motion(old)
        noise = self._noise(old, n_steps)
        good = torch.ones((), dtype=torch.bool, device=self._device)
        for number in range(n_steps):
            now, fine = self._one_step(now, noise[number])
            good = good & fine
        columns = [good.double().unsqueeze(0), now.energies.double()]
        columns += [one.double().flatten() for one in (now[0], now[1], now[3])]
        # the one time that the host waits
        seen = torch.cat(columns).cpu().numpy()
        if not seen[0]:
            return None
        n_replicas, n_atoms = len(old.energies), len(old.positions)
        energies, rest = seen[1 : 1 + n_replicas], seen[1 + n_replicas :]
        positions, velocities, forces = rest.reshape(3, n_atoms, 3)
        new = old._replace(
            positions=positions,
            velocities=velocities,
            energies=energies,
            forces=forces,
            step_count=old.step_count + n_steps,
            steps_since_start=old.steps_since_start + n_steps,
        )
        self._kept = new, now
        return new

    def _one_step(
        self, old: Motion, noise: Float[Tensor, "atom 3"]
    ) -> tuple[Motion, Bool[Tensor, ""]]:
        """Return where replicas are one step later, and whether that can be trusted."""
        velocities = kick(old.velocities, old.forces, self._step)
        positions, velocities = drift_and_mix(
            old.positions, velocities, noise, self._step
        )
        graph, fine = self.neighbors(positions)
        answer = self._engine(graph)
        forces = answer.forces.double()
        velocities = kick(velocities, forces, self._step)
        squares = velocities.square() * self._heat
        temperatures = torch.zeros_like(answer.energy, dtype=squares.dtype)
        temperatures = temperatures.index_add(0, self._owner, squares.sum(dim=1))
        # comparisons with what is no number are false
        fine = fine & (temperatures <= self._max_temperature_K).all()
        fine = fine & answer.energy.isfinite().all() & forces.isfinite().all()
        if self._near.may_warn:
            near = self._near.by_atom(graph)
            assert near is not None
            fine = fine & (near.amax() <= 1)
        return Motion(positions, velocities, answer.energy, forces), fine

    def _motion(self, state: ReplicaState) -> Motion:
        if self._kept is not None and self._kept[0] is state:
            return self._kept[1]
        return Motion(
            *(
                self._tensor(values)
                for values in (
                    state.positions,
                    state.velocities,
                    state.energies,
                    state.forces,
                )
            )
        )

    def _noise(self, state: ReplicaState, n_steps: int) -> Float[Tensor, "step atom 3"]:
        shape = (n_steps, *state.positions.shape)
        if not self._host.is_random:
            return self._step.noise.new_zeros(1, 1, 1).expand(shape)
        noise = np.stack(
            [
                self._host.noise(state.seeds, state.step_count + 1 + number)
                for number in range(n_steps)
            ]
        )
        return self._tensor(noise)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values, device=self._device)
