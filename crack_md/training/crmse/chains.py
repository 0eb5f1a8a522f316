"""Persistent chains of the student beside its training, and graphs of them.

Half of them start from training frames, half from frames whose torsions were turned:
wells that no frame shows are found from there. Energies have no lower bound: false
minima are what chains are there to find. But a molecule that has come apart, or holds
more energy than heat gives it, starts again: its energy could be raised for ever
without any datum that speaks against it.
"""

import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from ase import Atoms, units
from jaxtyping import Bool, Float

from crack_md.calculators.engine import EagerEngine
from crack_md.calculators.evaluator import BatchEvaluator
from crack_md.calculators.replicas.langevin import Langevin
from crack_md.calculators.replicas.replicas import Replicas
from crack_md.calculators.replicas.state import (
    BatchForces,
    CalculatorForces,
    ForceBatch,
)
from crack_md.data.dataset import LabelledStructure
from crack_md.data.torsions import (
    BLOW_UP_A,
    Bonds,
    TorsionTurner,
    bonded_pairs,
    broken_bond,
    distances,
    find_bonds,
    find_torsions,
)
from crack_md.errors import StructureError
from crack_md.graph import AtomGraph, batch_graphs
from crack_md.models.force_field import ForceField
from crack_md.neighbors import graph_builder
from crack_md.training.data.feed import shuffled
from crack_md.training.losses.crmse import CrmseConfig

SPREADS = 6.0
"""Energies so many standard deviations above the mean come once in 1e9 frames."""

Atomic = Float[np.ndarray, "atom 3"]


def kind_of(frame: LabelledStructure) -> Hashable:
    """Return what frames share whose atoms are the same, in the same order."""
    return tuple(frame.atoms.numbers.tolist()), tuple(frame.atoms.pbc.tolist())


@dataclass(frozen=True, eq=False)
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

    def are_broken(
        self,
        frames: Float[np.ndarray, "frame atom 3"],
        energies: Float[np.ndarray, " frame"],
    ) -> Bool[np.ndarray, " frame"]:
        """Return which structures break a bound."""
        off = np.abs(distances(frames, self.bonds) - self.bond_means)
        return (energies > self.highest_energy) | (off > BLOW_UP_A).any(axis=1)

    def broken(self, positions: Atomic, energy: float) -> str | None:
        """Return which bound a structure breaks, or None."""
        if energy > self.highest_energy:
            above = energy - self.energy_mean
            return f"{above:.2f} eV above the mean of the data"
        return broken_bond(positions, self.bonds, self.bond_means)


SKIN = 0.5
"""Å; chains move little from step to step."""
TRIES = 10
"""Draws of turned torsions before a chain starts from its frame as it is."""


class ChainForces(BatchForces, Protocol):
    """Forces on chains, and the graph of them that losses ask about."""

    def graph(self, positions: Float[np.ndarray, "atom 3"]) -> AtomGraph:
        """Return one graph of all chains at positions in Å."""
        ...


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
        self._student, self._structures = student, structures
        evaluator = BatchEvaluator([EagerEngine(student)], skin=SKIN)
        self._whole = evaluator.replica_forces(structures)
        self._forces = self._whole or CalculatorForces(structures, evaluator)
        self._build = [
            graph_builder(
                student.rule, SKIN, dtype=student.dtype, device=student.device
            )
            for _ in structures
        ]
        ends = np.cumsum([len(atoms) for atoms in structures]).tolist()
        self._rows = [
            slice(end - len(atoms), end)
            for atoms, end in zip(structures, ends, strict=True)
        ]
        self._chains_of = {
            bound: [i for i, own in enumerate(bounds) if own is bound]
            for bound in dict.fromkeys(bounds)
        }

    def forces(self, positions: Float[np.ndarray, "atom 3"]) -> ForceBatch:
        """Return energies and forces, and which chains are out of bounds."""
        with evaluating(self._student):
            answer = self._forces.forces(positions)
        errors = dict(answer.errors)
        for bounds, chains in self._chains_of.items():
            frames = np.stack([positions[self._rows[chain]] for chain in chains])
            energies = answer.energies[chains]
            out = bounds.are_broken(frames, energies) & np.isfinite(energies)
            for place in np.flatnonzero(out).tolist():
                chain, frame = chains[place], frames[place]
                reason = bounds.broken(frame, energies[place])
                errors.setdefault(chain, str(reason))
        return answer._replace(errors=errors)

    def graph(self, positions: Float[np.ndarray, "atom 3"]) -> AtomGraph:
        """Return one graph of all chains at positions in Å, as the student wants it."""
        if self._whole is not None:
            return self._whole.graph(positions)
        return batch_graphs(
            [
                build(self._placed(chain, positions[self._rows[chain]]))
                for chain, build in enumerate(self._build)
            ]
        )

    def _placed(self, chain: int, positions: Float[np.ndarray, "atom 3"]) -> Atoms:
        atoms = self._structures[chain].copy()
        atoms.positions = positions
        return atoms


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
        forces: ChainForces,
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
        self._forces = forces
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

    def graph(self) -> AtomGraph:
        """Return one graph of all chains where they are."""
        return self._forces.graph(self.replicas.state.positions)

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
    """Return chains that start from training frames, half of them with torsions turned.

    Args:
        config: number and motion of the chains.
        student: what moves them; on its device.
        train: the training frames.
        seed: of the draws and of the noise.
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
    own = [bounds[kind_of(frame)] for frame in chosen]
    forces = StudentForces(student, [frame.atoms for frame in chosen], own)
    atoms_of = {kind: [one.atoms for one in kinds[kind]] for kind in kinds}
    turners = {kind: torsion_turner(frames) for kind, frames in atoms_of.items()}
    return Chains(
        turned_starts(
            [frame.atoms for frame in chosen],
            [turners[kind_of(frame)] for frame in chosen],
            forces,
            seed=seed,
        ),
        forces,
        own,
        Langevin(config.temperature_K, config.friction_per_ps, config.timestep_fs),
        steps=config.steps_per_update,
        restart_frames=[atoms_of[kind_of(frame)] for frame in chosen],
        seed=seed,
    )


def turned_starts(
    starts: Sequence[Atoms],
    turners: Sequence[TorsionTurner | None],
    forces: BatchForces,
    *,
    seed: int,
) -> list[Atoms]:
    """Return the starts, every other one with its torsions at random angles.

    What the student puts out of bounds is drawn again, and after `TRIES` draws stays as
    it was. So do structures without torsions: crystals, several molecules.

    Args:
        starts: one structure for each chain.
        turners: what turns the torsions of each, if it has any.
        forces: which say what is out of bounds.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    found = [atoms.copy() for atoms in starts]
    waiting = list(range(1, len(starts), 2))
    for _ in range(TRIES):
        for i in waiting:
            if (turn := turners[i]) is not None:
                found[i].positions = turn(starts[i].positions, rng)
        answer = ForceBatch(
            *forces.forces(np.concatenate([atoms.positions for atoms in found]))
        )
        finite = np.isfinite(answer.energies)
        waiting = [i for i in waiting if i in answer.errors or not finite[i]]
    for i in waiting:
        found[i].positions = starts[i].positions
    return found


def torsion_turner(frames: Sequence[Atoms]) -> TorsionTurner | None:
    """Return what turns the torsions of a molecule, None where there are none."""
    numbers = frames[0].numbers
    positions = np.stack([atoms.positions for atoms in frames])
    if frames[0].pbc.any():
        return None
    try:
        graph = find_bonds(numbers, positions)
    except StructureError:  # two atoms, or several molecules
        return None
    torsions = find_torsions(graph, positions)
    return TorsionTurner(graph, torsions, numbers, positions) if torsions else None
