"""Hot dynamics with a student, each run up to its first diverged frame.

Reasons start with one word, which tables count: not_finite, force, energy_jump,
contact, evaporated.
"""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.data import covalent_radii
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from crack_md.calculators import Langevin, Replicas
from crack_md.calculators.batched import BatchCalculator
from crack_md.calculators.replicas.state import (
    BatchForces,
    CalculatorForces,
    ForceBatch,
)
from crack_md.neighbors import all_pairs
from crack_md.training.on_policy.config import DivergenceLimits, ExplorationDynamics
from crack_md.training.on_policy.starts import Start, Visit


def why_forces_diverged(
    energy: float,
    forces: Float[np.ndarray, "atom 3"],
    limits: DivergenceLimits,
    *,
    before: float | None,
) -> str | None:
    """Return why an answer of the student cannot be meant, or None.

    Args:
        energy: eV.
        forces: eV/Å.
        limits: Of the loop.
        before: Energy of the step before, if there was one.
    """
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        return "not_finite: energy or forces"
    largest = float(np.linalg.norm(forces, axis=1).max())
    if largest > limits.largest_force:
        return f"force: {largest:.1f} eV/Å, above {limits.largest_force:g}"
    if before is None:
        return None
    jump = abs(energy - before) / len(forces)
    if jump > limits.energy_jump_eV_per_atom:
        return (
            f"energy_jump: {jump:.2f} eV/atom in a step, above "
            f"{limits.energy_jump_eV_per_atom:g}"
        )
    return None


def why_shape_diverged(
    atoms: Atoms, limits: DivergenceLimits, *, n_pieces: int
) -> str | None:
    """Return why a structure has fallen in or apart, or None.

    Args:
        atoms: With finite positions.
        limits: Of the loop.
        n_pieces: `count_pieces` of the start.
    """
    pairs = all_pairs(atoms, limits.evaporated_A)
    radii = covalent_radii[atoms.numbers]
    closeness = pairs.distance / (radii[pairs.receiver] + radii[pairs.sender])
    if len(closeness) and closeness.min() < limits.closest:
        worst = int(closeness.argmin())
        ends = atoms.symbols[[pairs.receiver[worst], pairs.sender[worst]]]
        return (
            f"contact: {'-'.join(sorted(ends))} at {pairs.distance[worst]:.2f} Å, "
            f"{closeness[worst]:.2f} of the sum of radii"
        )
    if _count(len(atoms), pairs.receiver, pairs.sender) > n_pieces:
        return f"evaporated: a gap of more than {limits.evaporated_A:g} Å opened"
    return None


def count_pieces(atoms: Atoms, gap_A: float) -> int:
    """Return in how many pieces a structure is, with gaps wider than this between."""
    pairs = all_pairs(atoms, gap_A)
    return _count(len(atoms), pairs.receiver, pairs.sender)


def category(reason: str) -> str:
    """Return the word that tables count."""
    return reason.partition(":")[0]


def _count(n_atoms: int, first: np.ndarray, second: np.ndarray) -> int:
    joined = coo_array((np.ones(len(first)), (first, second)), shape=(n_atoms, n_atoms))
    return int(connected_components(joined, directed=False, return_labels=False))


class GuardedForces:
    """Forces on replicas that note where each of them diverges first.

    A replica without forces starts again, which ends the run that counts here: what it
    does later is not looked at.

    Args:
        inner: The forces.
        sizes: Atoms of every replica.
        limits: What is beyond the student.
    """

    def __init__(
        self, inner: BatchForces, sizes: Sequence[int], limits: DivergenceLimits
    ) -> None:
        self.inner, self.limits = inner, limits
        self.ends: dict[int, tuple[str, Float[np.ndarray, "atom 3"]]] = {}
        """Reason and last finite positions of the replicas that have diverged."""
        ends = np.cumsum(sizes).tolist()
        self._rows = [slice(end - n, end) for n, end in zip(sizes, ends, strict=True)]
        self._energies: list[float | None] = [None] * len(sizes)
        self._positions: list[Float[np.ndarray, "atom 3"] | None] = [None] * len(sizes)

    def forces(self, positions: Float[np.ndarray, "atom 3"]) -> ForceBatch:
        """Return energies (eV) and forces (eV/Å); none where a replica diverges."""
        answer = ForceBatch(*self.inner.forces(positions))
        energies, errors = answer.energies.copy(), dict(answer.errors)
        for replica, rows in enumerate(self._rows):
            if replica in self.ends:
                continue
            here, energy = positions[rows], float(answer.energies[replica])
            reason = (
                f"not_finite: {errors[replica]}"
                if replica in errors
                else why_forces_diverged(
                    energy,
                    answer.forces[rows],
                    self.limits,
                    before=self._energies[replica],
                )
            )
            if np.isfinite(here).all():
                self._positions[replica] = here.copy()
            self._energies[replica] = energy
            if reason is not None:
                last = self._positions[replica]
                assert last is not None, "runs start from finite positions"
                self.ends[replica] = reason, last
                errors[replica], energies[replica] = reason, np.nan
        return ForceBatch(energies, answer.forces, errors)


def run_dynamics(
    starts: Sequence[Start],
    calculator: BatchCalculator | BaseCalculator,
    settings: ExplorationDynamics,
    limits: DivergenceLimits,
    *,
    seed: Sequence[int],
) -> dict[int, list[Visit]]:
    """Return the frames of one Langevin run for each start, by its number.

    Args:
        starts: Structures that the student has forces for.
        calculator: The student, or any other of ASE.
        settings: How long, and how hot; the temperature of each run is drawn.
        limits: What ends a run.
        seed: With the number of a start it decides temperature and noise.
    """
    if not starts:
        return {}
    structures = [_prepared(start.atoms, settings) for start in starts]
    sizes = [len(atoms) for atoms in structures]
    guarded = GuardedForces(CalculatorForces(structures, calculator), sizes, limits)
    randoms = [np.random.default_rng([*seed, start.number]) for start in starts]
    temperatures = [
        float(random.uniform(settings.coldest_K, settings.hottest_K))
        for random in randoms
    ]
    replicas = Replicas(
        structures,
        guarded,
        Langevin(temperatures, settings.friction_per_ps, settings.timestep_fs),
        seeds=[int(random.integers(2**62)) for random in randoms],
        max_temperature_K=np.inf,  # what is too hot has forces or jumps beyond limits
    )
    pieces = [count_pieces(atoms, limits.evaporated_A) for atoms in structures]
    visits: dict[int, list[Visit]] = {start.number: [] for start in starts}
    ended: set[int] = set()
    for done in range(settings.every, settings.steps + 1, settings.every):
        replicas.run(settings.every)
        for place, start in enumerate(starts):
            if place in ended:
                continue
            facts = {"temperature_K": temperatures[place]}
            atoms = structures[place]
            if place not in guarded.ends:
                atoms.positions = replicas.state.positions[replicas.atoms.rows(place)]
                reason = why_shape_diverged(atoms, limits, n_pieces=pieces[place])
                positions = atoms.positions.copy()
            else:
                reason, positions = guarded.ends[place]
            if reason is not None:
                ended.add(place)
                guarded.ends[place] = reason, positions
            visits[start.number].append(Visit(positions, done, reason, facts))
        if len(ended) == len(starts):
            break
    return visits


def _prepared(atoms: Atoms, settings: ExplorationDynamics) -> Atoms:
    prepared = atoms.copy()
    prepared.set_masses(np.full(len(prepared), settings.mass_u))
    return prepared
