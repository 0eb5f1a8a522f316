"""Dynamics whose state stays on the device of the model for several steps.

The steps are those of `langevin`, on tensors: positions, velocities, neighbors and
forces do not come to the host in between. It sees them after some steps, in one copy
that also says whether all went well. If not, nothing has happened: the host takes the
same steps itself, one by one, and deals with what is wrong.
"""

import logging
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
from crack_md.calculators.replicas.state import Carried, Motion, ReplicaAtoms
from crack_md.neighbors import SmoothNeighbors
from crack_md.neighbors.on_device import DeviceNeighbors

if TYPE_CHECKING:
    from crack_md.calculators.evaluator import NearWatch

log = logging.getLogger(__name__)

RESERVE = 1.5
"""How much faster than now an atom may become until the host looks."""


class Moving(NamedTuple):
    """Where all replicas are, on the device, and what they have met on the way."""

    positions: Float[Tensor, "atom 3"]
    velocities: Float[Tensor, "atom 3"]
    energies: Float[Tensor, " replica"]
    forces: Float[Tensor, "atom 3"]
    heat: Float[Tensor, " replica"]
    """eV that the bath has put in."""
    nearest: Float[Tensor, ""]
    """How near atoms came, measured by training; 0 where that is not known."""
    fine: Bool[Tensor, ""]
    """Whether all of it can be trusted."""


class Carrier:
    """Moves replicas by a model, several steps at a time.

    Args:
        engine: of the model, whose neighbors are those of a smooth rule.
        structures: what the replicas are.
        atoms: of all replicas.
        step: coefficients of the integrator.
        max_temperature_K: above which a replica is not carried on.
        skin: of the neighbor lists, in Å.
        limit: how many atoms share a pass; more than that are not carried.
        near: watches how near atoms are.
    """

    def __init__(
        self,
        engine: Engine,
        structures: Sequence[Atoms],
        atoms: ReplicaAtoms,
        step: Coefficients[np.ndarray],
        max_temperature_K: Float[np.ndarray, " replica"],
        *,
        skin: float,
        limit: AtomLimit,
        near: "NearWatch",
    ) -> None:
        model = engine.model
        assert isinstance(model.rule, SmoothNeighbors)
        self._engine, self._limit, self._near = engine, limit, near
        self._device = model.device
        self.neighbors = DeviceNeighbors(
            structures, model.rule, skin, dtype=model.dtype, device=model.device
        )
        self.n_refused = 0
        """How often the host had to take the steps that were asked for."""
        self._kept: tuple[Motion, Moving] | None = None
        self._sizes = [len(one) for one in structures]
        self._step = Coefficients(
            step.timestep, *(self._tensor(column) for column in step[1:])
        )
        self._owner = self._tensor(atoms.owner)
        moves = atoms.inverse_mass > 0
        mass = np.divide(1, atoms.inverse_mass, where=moves, out=np.zeros(moves.shape))
        self._half_mass = self._tensor(mass / 2)
        degrees = atoms.n_degrees * units.kB / 2
        self._hottest = self._tensor(max_temperature_K * degrees)
        """eV; kinetic energies at the highest temperature."""

    def carry(
        self,
        old: Motion,
        n_steps: int,
        *,
        noise: Float[np.ndarray, "step atom 3"] | None = None,
    ) -> Carried | None:
        """Return where replicas are some steps later; None where the host has to see.

        Args:
            old: where they are.
            n_steps: 1 or more.
            noise: standard normal numbers; None without a bath.
        """
        try:
            self._prepare(old, n_steps)
            if count_in_batch(self._sizes, self._room()) < len(self._sizes):
                return None
            with torch.no_grad():
                found = self._carried(old, n_steps, noise)
        except Exception as error:  # the host meets it, and says which replica it is of
            log.info("steps on the device failed (%s): the host takes them", error)
            found = None
        self.n_refused += found is None
        return found

    def _room(self) -> int:
        return self._limit.atoms(self.neighbors.widest)

    def _prepare(self, old: Motion, n_steps: int) -> None:
        fastest = np.linalg.norm(old.velocities, axis=1).max()
        ahead = RESERVE * float(fastest) * n_steps * self._step.timestep
        if not self.neighbors.will_last(old.positions, ahead):
            self.neighbors.renew(old.positions)

    def _carried(
        self, old: Motion, n_steps: int, noise: Float[np.ndarray, "step atom 3"] | None
    ) -> Carried | None:
        now = self._moving(old)
        kicks = None if noise is None else self._tensor(noise)
        for number in range(n_steps):
            now = self._one_step(now, None if kicks is None else kicks[number])
        flags = torch.stack([now.fine.double(), now.nearest.double()])
        columns = [flags, now.energies, now.heat]
        columns += [
            one.flatten() for one in (now.positions, now.velocities, now.forces)
        ]
        # the one time that the host waits
        seen = torch.cat(columns).cpu().numpy()
        if not seen[0]:
            return None
        n_replicas = len(self._sizes)
        energies, heat = seen[2 : 2 + 2 * n_replicas].reshape(2, n_replicas)
        positions, velocities, forces = seen[2 + 2 * n_replicas :].reshape(3, -1, 3)
        motion = Motion(positions, velocities, energies, forces)
        self._kept = motion, now
        knows = self._near.shortest is not None
        return Carried(motion, heat, float(seen[1]) if knows else None)

    def _one_step(self, old: Moving, noise: Float[Tensor, "atom 3"] | None) -> Moving:
        """Return where replicas are one step later."""
        step, heat = self._step, old.heat
        before = kick(old.velocities, old.forces, step)
        kicks = step.noise if noise is None else noise  # which is zero without a bath
        positions, velocities = drift_and_mix(old.positions, before, kicks, step)
        if noise is not None:
            heat = heat + self._kinetic(velocities) - self._kinetic(before)
        graph, fine = self.neighbors(positions)
        answer = self._engine(graph)
        energies, forces = answer.energy.double(), answer.forces.double()
        velocities = kick(velocities, forces, step)
        # comparisons with what is no number are false
        fine = fine & (self._kinetic(velocities) <= self._hottest).all()
        fine = fine & energies.isfinite().all() & forces.isfinite().all() & old.fine
        nearest, near = old.nearest, self._near.by_atom(graph)
        if near is not None:
            nearest = torch.maximum(nearest, near.amax().double())
            if self._near.may_warn:
                fine = fine & (nearest <= 1)
        return Moving(positions, velocities, energies, forces, heat, nearest, fine)

    def _kinetic(
        self, velocities: Float[Tensor, "atom 3"]
    ) -> Float[Tensor, " replica"]:
        energies = velocities.square().sum(dim=1) * self._half_mass.squeeze(1)
        zeros = energies.new_zeros(len(self._sizes))
        return zeros.index_add(0, self._owner, energies)

    def _moving(self, old: Motion) -> Moving:
        nothing = torch.zeros((), dtype=torch.float64, device=self._device)
        if self._kept is not None and self._kept[0] is old:
            positions, velocities, energies, forces = self._kept[1][:4]
        else:
            positions, velocities, energies, forces = map(self._tensor, old)
        return Moving(
            positions,
            velocities,
            energies,
            forces,
            heat=torch.zeros_like(energies),
            nearest=nothing,
            fine=nothing == 0,
        )

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values, device=self._device)
