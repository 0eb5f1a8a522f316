"""Runs of a student: what they visit, and where they end."""

from itertools import pairwise

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from crack_md.calculators.replicas.state import ForceBatch
from crack_md.training.on_policy.config import (
    DivergenceLimits,
    Exploration,
    ExplorationDynamics,
    Relaxations,
)
from crack_md.training.on_policy.dynamics import GuardedForces, run_dynamics
from crack_md.training.on_policy.explore import explore
from crack_md.training.on_policy.starts import QUARANTINE, Start

LIMITS = DivergenceLimits()


class Script:
    """Forces of two replicas of one atom each, written down step by step."""

    def __init__(self, energies, forces, errors=()):
        self.steps = iter(zip(energies, forces, strict=True))
        self.errors = dict(errors)

    def forces(self, positions):
        energies, forces = next(self.steps)
        return ForceBatch(np.array(energies), np.array(forces, dtype=float))


def rows(first: float, second: float) -> list[list[float]]:
    return [[first, 0, 0], [second, 0, 0]]


def test_a_replica_ends_where_it_first_diverges():
    script = Script(
        energies=[[0.0, 0.0], [0.1, 0.4], [0.2, 9.0], [0.9, 9.0]],
        forces=[rows(1, 1), rows(1, 1), rows(1, 1), rows(1, 99)],
    )
    guarded = GuardedForces(script, [1, 1], LIMITS)
    answers = [guarded.forces(np.full((2, 3), float(step))) for step in range(4)]

    assert guarded.ends.keys() == {0, 1}
    reason, where = guarded.ends[1]  # not the force of 99 eV/Å that comes later
    assert reason == "energy_jump: 8.60 eV/atom in a step, above 0.5"
    assert where.tolist() == [[2.0, 2.0, 2.0]]
    assert guarded.ends[0][0] == "energy_jump: 0.70 eV/atom in a step, above 0.5"
    assert np.isnan(answers[2].energies).tolist() == [False, True]
    assert answers[2].errors == {1: reason}
    assert answers[3].energies[1] == 9.0  # it has started again: nobody looks


def test_what_is_not_finite_ends_at_the_last_place_that_is():
    script = Script([[0.0, 0.0], [0.0, np.nan]], [rows(1, 1), rows(1, np.nan)])
    guarded = GuardedForces(script, [1, 1], LIMITS)
    guarded.forces(np.ones((2, 3)))
    guarded.forces(np.array([[1.0] * 3, [np.nan] * 3]))

    reason, where = guarded.ends[1]
    assert reason == "not_finite: energy or forces"
    assert where.tolist() == [[1.0, 1.0, 1.0]]


def start(number: int, atoms: Atoms) -> Start:
    atoms.info = {"group": f"g{number}", "split": "train"}
    return Start(number, atoms)


def copper(rattle: float, seed: int = 0) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(rattle, seed=seed)
    return atoms


def test_relaxations_keep_frames_apart_and_their_end():
    settings = Exploration(
        relax=Relaxations(steps=30, spacing_A=0.05, fmax=0.01), dynamics=None
    )

    frames = explore([start(4, copper(0.15))], EMT(), settings, LIMITS, seed=[0])

    ideal = bulk("Cu", cubic=True).get_all_distances(mic=True)
    np.testing.assert_allclose(frames[-1].get_all_distances(mic=True), ideal, atol=0.02)
    assert {frame.info["kind"] for frame in frames} == {"relaxed"}
    assert {frame.info["start"] for frame in frames} == {4}
    assert {frame.info["group"] for frame in frames} == {"g4"}
    moves = [
        np.linalg.norm(b.positions - a.positions, axis=1).max()
        for a, b in pairwise(frames[:-1])
    ]
    assert min(moves) > 0.05
    assert all(frame.calc is None for frame in frames)  # a student's are no labels


def test_a_relaxation_that_falls_in_is_quarantined():
    close = Atoms("Cu2", [[0, 0, 0], [0, 0, 1.25]], cell=[9, 9, 9], pbc=True)
    settings = Exploration(relax=Relaxations(steps=5), dynamics=None)

    frames = explore([start(0, close)], EMT(), settings, LIMITS, seed=[0])

    (frame,) = frames
    assert frame.info[QUARANTINE].startswith(("force: ", "contact: "))


def test_structures_without_a_start_do_not_run():
    close = Atoms("Cu2", [[0, 0, 0], [0, 0, 1.25]], cell=[9, 9, 9], pbc=True)
    settings = Exploration(relax=None, dynamics=ExplorationDynamics(steps=4, every=2))
    starts = [start(0, close), start(1, copper(0.05))]

    frames = explore(starts, EMT(), settings, LIMITS, seed=[0])

    assert [frame.info["start"] for frame in frames] == [0, 1, 1]
    assert [frame.info["step"] for frame in frames] == [0, 2, 4]
    assert QUARANTINE in frames[0].info
    assert QUARANTINE not in frames[1].info


def test_runs_depend_on_their_own_number_alone():
    settings = ExplorationDynamics(steps=6, every=3, coldest_K=300, hottest_K=900)
    starts = [start(n, copper(0.05, seed=n)) for n in range(3)]

    together = run_dynamics(starts, EMT(), settings, LIMITS, seed=[5, 1])
    alone = run_dynamics(starts[2:], EMT(), settings, LIMITS, seed=[5, 1])
    other = run_dynamics(starts[2:], EMT(), settings, LIMITS, seed=[5, 2])

    for one, two in zip(together[2], alone[2], strict=True):
        # EMT's neighbor lists depend on what it saw before
        np.testing.assert_allclose(one.positions, two.positions, atol=1e-12)
        assert one.facts == two.facts
    temperatures = [run[0].facts["temperature_K"] for run in together.values()]
    assert len(set(temperatures)) == 3
    assert all(300 <= value <= 900 for value in temperatures)
    assert not np.array_equal(other[2][0].positions, alone[2][0].positions)


def test_held_atoms_stay_in_dynamics():
    atoms = copper(0.05)
    atoms.set_constraint(FixAtoms([0]))

    runs = run_dynamics(
        [start(0, atoms)],
        EMT(),
        ExplorationDynamics(steps=4, every=4),
        LIMITS,
        seed=[0],
    )

    (visit,) = runs[0]
    np.testing.assert_array_equal(visit.positions[0], atoms.positions[0])
    assert np.abs(visit.positions[1:] - atoms.positions[1:]).min() > 0


def test_contacts_are_found_between_steps():
    # 0.93 of the sum of radii is 2.46 Å; neighbors of the ideal cell are at 2.55 Å
    runs = run_dynamics(
        [start(0, copper(0.1))],
        EMT(),
        ExplorationDynamics(steps=4, every=2),
        DivergenceLimits(closest=0.93),
        seed=[0],
    )

    (visit,) = runs[0]
    assert visit.reason.startswith("contact: Cu-Cu at 2.")
