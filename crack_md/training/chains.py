"""Persistent chains: where the student's own dynamics goes while it is trained."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.calculators.batch_forces import BatchForces, CalculatorForces, ForceBatch
from crack_md.calculators.engine import EagerEngine
from crack_md.calculators.evaluator import BatchEvaluator
from crack_md.calculators.langevin import Langevin
from crack_md.calculators.replicas import Replicas
from crack_md.data.dataset import LabelledStructure
from crack_md.graph import AtomGraph, batch_graphs
from crack_md.models.force_field import ForceField
from crack_md.neighbors import build_graph
from crack_md.training.chain_bounds import ChainBounds, kind_of
from crack_md.training.loss_config import CrmseConfig
from crack_md.training.sampling import shuffled

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

    def forces(self, positions: Float[NDArray[np.float64], "atom 3"]) -> ForceBatch:
        """Return energies and forces, and which chains are out of bounds."""
        with evaluating(self._student):
            answer = self._forces.forces(positions)
        errors = dict(answer.errors)
        for chain, (bounds, rows) in enumerate(
            zip(self._bounds, self._rows, strict=True)
        ):
            if chain not in errors and np.isfinite(answer.energies[chain]):
                reason = bounds.broken(
                    positions[rows], answer.energies[chain], answer.forces[rows]
                )
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
    def energies(self) -> Float[NDArray[np.float64], " chain"]:
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
