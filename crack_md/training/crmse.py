"""CRMSE in training: persistent chains of the student, and the weight λ of their term.

False minima are what chains are there to find, so low energies have no bound. But once
a molecule has come apart, or holds more energy than heat gives it, its energy could be
raised for ever without any datum that speaks against it.

The contrast is stiff (its curvature is β² times a covariance of energies), so λ has to
be small, and no number suits two molecules. It is set so that the gradient of the
contrast is a share of that of all other losses together.
"""

import logging
import math
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from jaxtyping import Float
from torch import Tensor

from crack_md.calculators.engine import EagerEngine
from crack_md.calculators.evaluator import BatchEvaluator
from crack_md.calculators.replicas.langevin import Langevin
from crack_md.calculators.replicas.replicas import Replicas
from crack_md.calculators.replicas.state import (
    BatchForces,
    CalculatorForces,
    ForceBatch,
)
from crack_md.data.bonds import Bonds, bonded_pairs, broken_bond, distances
from crack_md.data.dataset import LabelledStructure
from crack_md.graph import AtomGraph, batch_graphs
from crack_md.models.force_field import ForceField
from crack_md.neighbors import build_graph
from crack_md.training.data.feed import seed_step, shuffled
from crack_md.training.data.frames import Batch
from crack_md.training.loop.objective import Objective
from crack_md.training.losses.crmse import NAME, CrmseConfig

SPREADS = 6.0
"""Energies so many standard deviations above the mean come once in 1e9 frames."""

Atomic = Float[np.ndarray, "atom 3"]


def kind_of(frame: LabelledStructure) -> Hashable:
    """Return what frames share whose atoms are the same, in the same order."""
    return tuple(frame.atoms.numbers.tolist()), tuple(frame.atoms.pbc.tolist())


@dataclass(frozen=True)
class ChainBounds:
    """What the data of one kind say about its chains."""

    bonds: Bonds
    """None in periodic structures, where atoms change places."""
    bond_means: Float[np.ndarray, " bond"]
    """Å."""
    energy_mean: float
    """eV, of the data."""
    thermal_spread: float
    """eV: √(n/2) kT of n oscillators, what equipartition expects."""
    highest_energy: float
    """eV."""

    @classmethod
    def of(
        cls, frames: Sequence[LabelledStructure], temperature_K: float
    ) -> "ChainBounds":
        """Return the bounds that frames of one kind set at their temperature."""
        atoms = frames[0].atoms
        positions = np.stack([frame.atoms.positions for frame in frames])
        is_molecule = not atoms.pbc.any()
        bonds = (
            bonded_pairs(atoms.numbers, positions)
            if is_molecule
            else np.empty((0, 2), dtype=np.int64)
        )
        n_modes = max(3 * int(frames[0].free.sum()) - (6 if is_molecule else 3), 1)
        thermal = float(np.sqrt(n_modes / 2)) * units.kB * temperature_K
        energies = np.array([frame.energy for frame in frames])
        mean = float(energies.mean())
        highest = mean + SPREADS * max(float(energies.std()), thermal)
        means = distances(positions, bonds).mean(axis=0)
        return cls(bonds, means, mean, thermal, highest)

    def broken(self, positions: Atomic, energy: float) -> str | None:
        """Return which bound a structure breaks, or None."""
        if energy > self.highest_energy:
            above = energy - self.energy_mean
            return f"{above:.2f} eV above the mean of the data"
        return broken_bond(positions, self.bonds, self.bond_means)


SKIN = 0.5
"""Å; chains move little from step to step."""


class StudentForces:
    """Forces of a student in training, as chains need them: in eval mode, with bounds.

    Args:
        student: may change between calls.
        structures: what the chains are.
        bounds: of each chain; one that breaks them has blown up.
    """

    def __init__(
        self,
        student: ForceField,
        structures: Sequence[Atoms],
        bounds: Sequence[ChainBounds],
    ) -> None:
        self._student, self._bounds = student, bounds
        evaluator = BatchEvaluator([EagerEngine(student)], skin=SKIN)
        self._forces = CalculatorForces(structures, evaluator)
        ends = np.cumsum([len(atoms) for atoms in structures]).tolist()
        self._rows = [
            slice(end - len(atoms), end)
            for atoms, end in zip(structures, ends, strict=True)
        ]

    def forces(self, positions: Float[np.ndarray, "atom 3"]) -> ForceBatch:
        """Return energies and forces, and which chains are out of bounds."""
        with evaluating(self._student):
            answer = self._forces.forces(positions)
        errors = dict(answer.errors)
        for chain, (bounds, rows) in enumerate(
            zip(self._bounds, self._rows, strict=True)
        ):
            if chain not in errors and np.isfinite(answer.energies[chain]):
                reason = bounds.broken(positions[rows], answer.energies[chain])
                if reason is not None:
                    errors[chain] = reason
        return answer._replace(errors=errors)


@contextmanager
def evaluating(student: torch.nn.Module) -> Iterator[None]:
    """Let a student answer as it will when it serves, for a while."""
    was_training = student.training
    student.eval()
    try:
        yield
    finally:
        student.train(was_training)


class Chains:
    """Replicas that go on from step to step of training, and what they are worth.

    They start again only where they break a bound, and are counted: starting again from
    data at every step would hide the false minima behind barriers that CRMSE is for.

    Args:
        frames: first structure of every chain.
        forces: of the student.
        bounds: of each chain.
        dynamics: at the temperature of the data.
        steps: of dynamics per step of training.
        restart_frames: what each chain starts again from.
        seed: of the noise.
    """

    def __init__(
        self,
        frames: Sequence[Atoms],
        forces: BatchForces,
        bounds: Sequence[ChainBounds],
        dynamics: Langevin,
        *,
        steps: int,
        restart_frames: Sequence[Sequence[Atoms]] | None = None,
        seed: int = 0,
    ) -> None:
        self.replicas = Replicas(
            frames, forces, dynamics, seeds=seed, restart_frames=restart_frames
        )
        self.steps = steps
        self._mean = np.array([one.energy_mean for one in bounds])
        self._thermal = float(np.mean([one.thermal_spread for one in bounds]))
        self._last: tuple[int, float] | None = None

    def __len__(self) -> int:
        """Return the number of chains."""
        return self.replicas.atoms.n_replicas

    def advance(self, n_steps: int | None = None) -> None:
        """Move all chains by the student as it is now.

        The first half of a kick is by forces of the student one update ago, which
        differ by what an update changes: asking again would cost a step in six.
        """
        with warnings.catch_warnings():
            # chains are there to leave the training data
            warnings.filterwarnings("ignore", ".*do not trust the energy")
            self.replicas.run(self.steps if n_steps is None else n_steps)

    def structures(self) -> list[Atoms]:
        """Return where the chains are."""
        return self.replicas.structures()

    @property
    def energies(self) -> Float[np.ndarray, " chain"]:
        """Return potential energies in eV, relative to the mean of their data."""
        return np.asarray(self.replicas.state.energies - self._mean)

    def report(self) -> dict[str, float]:
        """Return what tells whether chains and data agree, and since when.

        Energies are relative to the mean of the data: the mean of healthy chains is
        near 0, far below it is a false minimum, far above it heating.
        """
        energies, state = self.energies, self.replicas.state
        n_steps, mean = state.step_count, float(energies.mean())
        last_step, last_mean = self._last or (0, mean)
        self._last = n_steps, mean
        n_updates = max(n_steps - last_step, 1) / self.steps
        return {
            "chain_energy_eV": mean,
            "chain_energy_std_eV": float(energies.std()),
            "chain_energy_std_equipartition_eV": self._thermal,
            "chain_drift_meV_per_update": 1000 * (mean - last_mean) / n_updates,
            "chain_temperature_K": float(self.replicas.temperatures.mean()),
            "chain_restarts": float(len(state.blow_ups)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on bit for bit, for `torch.save`."""
        arrays = self.replicas.state_dict()
        return {
            name: values.tolist() if values.dtype.kind == "U" else torch.tensor(values)
            for name, values in arrays.items()
        } | {"last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where such a state was taken."""
        arrays = {
            name: np.array(values, dtype=str)
            if isinstance(values, list)
            else values.numpy()
            for name, values in state.items()
            if name != "last"
        }
        self.replicas.load_state_dict(arrays)
        self._last = state["last"]


def build_chains(
    config: CrmseConfig,
    student: ForceField,
    train: Sequence[LabelledStructure],
    *,
    seed: int,
) -> Chains:
    """Return chains that start from training frames, drawn at random.

    Args:
        config: number and motion of the chains.
        student: what moves them; on its device.
        train: the training frames.
        seed: of the draw and of the noise.
    """
    order = shuffled(len(train), seed, 0).tolist()
    chosen = [train[order[i % len(order)]] for i in range(config.chains)]
    kinds: dict[Any, list[LabelledStructure]] = {}
    for frame in train:
        kinds.setdefault(kind_of(frame), []).append(frame)
    bounds = {
        kind: ChainBounds.of(frames, config.temperature_K)
        for kind, frames in kinds.items()
    }
    frames = [frame.atoms for frame in chosen]
    own = [bounds[kind_of(frame)] for frame in chosen]
    return Chains(
        frames,
        StudentForces(student, frames, own),
        own,
        Langevin(config.temperature_K, config.friction_per_ps, config.timestep_fs),
        steps=config.steps_per_update,
        restart_frames=[
            [frame.atoms for frame in kinds[kind_of(one)]] for one in chosen
        ],
        seed=seed,
    )


def chain_graph(chains: Chains, student: ForceField) -> AtomGraph:
    """Return one graph of all chains where they are, as the student wants it."""
    return batch_graphs(
        [
            build_graph(atoms, student.rule, dtype=student.dtype, device=student.device)
            for atoms in chains.structures()
        ]
    )


log = logging.getLogger(__name__)

HOT = 1.0
"""Thermal spreads above the data at which the mean energy of chains is worth a word."""
MEMORY = 0.9
"""Of the logarithm of λ from one time it is found to the next: a batch is a sample."""


class ContrastWeight:
    """λ, from the norms of two gradients.

    Args:
        share: The norm of λ times the contrast's gradient over that of all the rest.
        every: Steps from one time it is found to the next.
        seed: Of the run, for losses that draw.
    """

    def __init__(self, share: float, every: int, *, seed: int = 0) -> None:
        self._share, self._every, self._seed = share, every, seed
        self.log: float | None = None

    def update(self, objective: Objective, batch: Batch, step: int) -> None:
        """Set the objective's weight of the contrast, if it is time to."""
        if step % self._every and self.log is not None:
            return
        seed_step(self._seed, step, batch.graph.positions.device)
        values = objective.values(batch)
        rest = torch.stack(
            [
                objective.weights[name] * value
                for name, value in values.items()
                if name != NAME
            ]
        ).sum()
        others, own = (gradient_norm(loss, objective) for loss in (rest, values[NAME]))
        found = float((self._share * others / own).log())
        if not math.isfinite(found):
            return  # chains at their start are data: there is no contrast yet
        self.log = (
            found if self.log is None else MEMORY * self.log + (1 - MEMORY) * found
        )
        objective.weights[NAME] = math.exp(self.log)


def gradient_norm(loss: Tensor, objective: Objective) -> Tensor:
    """Return the norm of the gradient with respect to all weights."""
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    found = [gradient.norm() for gradient in gradients if gradient is not None]
    return torch.stack(found).norm()


class ChainContrast:
    """Moves the chains at every step of training and hands them to the loss.

    Args:
        chains: Of the student.
        graph_of: Returns the graph of all chains.
        weight: Finds λ; None where it is given.
        equilibrate_steps: Of dynamics before the first step of training.
    """

    def __init__(
        self,
        chains: Chains,
        graph_of: Callable[[Chains], AtomGraph],
        *,
        weight: ContrastWeight | None = None,
        equilibrate_steps: int = 0,
    ) -> None:
        self.chains = chains
        self._graph_of, self._weight = graph_of, weight
        self._equilibrate_steps = equilibrate_steps
        self._has_warned = False

    def joined(self, batch: Batch, objective: Objective, step: int) -> Batch:
        """Return the batch with the chains after their next steps."""
        if self._equilibrate_steps and not self.chains.replicas.state.step_count:
            self.chains.advance(self._equilibrate_steps)
        self.chains.advance()
        batch = batch._replace(chains=self._graph_of(self.chains))
        if self._weight is not None:
            self._weight.update(objective, batch, step)
        return batch

    def report(self, objective: Objective) -> dict[str, float]:
        """Return what the chains do, and λ; warn once if they heat up."""
        found = self.chains.report()
        above = found["chain_energy_eV"] / found["chain_energy_std_equipartition_eV"]
        if above > HOT and not self._has_warned:
            self._has_warned = True
            log.warning(
                "the chains lie %.2f eV above the data, %.1f times what heat spreads "
                "them: they do not keep up with the weights, or the model is far off; "
                "if that grows, lower optimizer.lr or the crmse loss's gradient_share",
                found["chain_energy_eV"],
                above,
            )
        return {**found, "crmse_weight": objective.weights[NAME]}

    def state_dict(self, objective: Objective) -> dict[str, Any]:
        """Return what a later start needs."""
        return {
            "chains": self.chains.state_dict(),
            "weight": objective.weights[NAME],
            "log_weight": None if self._weight is None else self._weight.log,
        }

    def load_state_dict(self, state: Mapping[str, Any], objective: Objective) -> None:
        """Go on where such a state was taken."""
        self.chains.load_state_dict(state["chains"])
        objective.weights[NAME] = state["weight"]
        if self._weight is not None:
            self._weight.log = state["log_weight"]
