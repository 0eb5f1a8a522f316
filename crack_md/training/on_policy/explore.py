"""What a student does with some structures: relaxations, then hot dynamics."""

from collections.abc import Sequence
from functools import partial

from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculationFailed
from ase.optimize import LBFGS

from crack_md.calculators import run_together
from crack_md.calculators.batched import BatchCalculator, calculate_each
from crack_md.errors import StructureError
from crack_md.training.on_policy.config import Exploration, Limits, Relaxations
from crack_md.training.on_policy.divergence import (
    count_pieces,
    why_forces_diverged,
    why_shape_diverged,
)
from crack_md.training.on_policy.dynamics import run_dynamics
from crack_md.training.on_policy.select import farthest_move
from crack_md.training.on_policy.visits import RunKind, Start, Visit

MAXSTEP_A = 0.15


def explore(
    starts: Sequence[Start],
    calculator: BatchCalculator | BaseCalculator,
    settings: Exploration,
    limits: Limits,
    *,
    seed: Sequence[int],
) -> list[Atoms]:
    """Return the frames of all runs from these structures, start by start.

    `info` of a frame tells its start, kind and step, and why it has diverged under
    "quarantine", where it has.

    Args:
        starts: All with finite positions.
        calculator: The student, or any other of ASE.
        settings: Which runs, and how long.
        limits: What ends a run.
        seed: With the number of a start it decides the noise of its dynamics.
    """
    visits: dict[tuple[int, RunKind], list[Visit]] = {}
    if settings.relax is not None:
        relax = partial(_relax, settings=settings.relax, limits=limits)
        for start, found in run_together(relax, starts, calculator, width=len(starts)):
            if isinstance(found, Exception):
                raise found
            assert isinstance(start, Start), "starts never pause"
            visits[start.number, "relaxed"] = found
    if settings.dynamics is not None:
        begins = [_moved(one, visits.get((one.number, "relaxed"))) for one in starts]
        sound, refused = _checked(begins, calculator, limits)
        runs = run_dynamics(sound, calculator, settings.dynamics, limits, seed=seed)
        for number, run in {**refused, **runs}.items():
            visits[number, "thermal"] = run
    kinds: tuple[RunKind, ...] = ("relaxed", "thermal")
    return [
        visit.frame(start, kind)
        for start in starts
        for kind in kinds
        for visit in visits.get((start.number, kind), [])
    ]


def _relax(
    start: Start, calculator: BaseCalculator, *, settings: Relaxations, limits: Limits
) -> list[Visit]:
    moving = start.atoms.copy()
    moving.calc = calculator
    n_pieces = count_pieces(moving, limits.evaporated_A)
    optimizer = LBFGS(moving, logfile=None, maxstep=MAXSTEP_A)  # type: ignore[arg-type]
    visits: list[Visit] = []
    visit, before = None, None
    try:
        for _ in optimizer.irun(fmax=settings.fmax, steps=settings.steps):
            energy = float(moving.get_potential_energy())
            forces = moving.get_forces(apply_constraint=False)
            reason = why_forces_diverged(
                energy, forces, limits, before=before
            ) or why_shape_diverged(moving, limits, n_pieces=n_pieces)
            visit = Visit(moving.positions.copy(), optimizer.nsteps, reason)
            if not visits or _has_moved(visits[-1], visit, settings.spacing_A):
                visits.append(visit)
            if reason is not None:
                break
            before = energy
    except (StructureError, CalculationFailed) as error:
        reason = f"not_finite: {error}"
        visit = Visit(moving.positions.copy(), optimizer.nsteps, reason)
    if visit is not None and visits[-1:] != [visit]:  # the end of a run is kept
        visits.append(visit)
    return visits


def _has_moved(last: Visit, visit: Visit, spacing_A: float) -> bool:
    return farthest_move(last.positions, visit.positions) > spacing_A


def _moved(start: Start, relaxation: Sequence[Visit] | None) -> Start:
    """Return the end of a relaxation that went well, else where it started."""
    if not relaxation or relaxation[-1].reason is not None:
        return start
    atoms = start.atoms.copy()
    atoms.positions = relaxation[-1].positions
    return Start(start.number, atoms)


def _checked(
    begins: Sequence[Start],
    calculator: BatchCalculator | BaseCalculator,
    limits: Limits,
) -> tuple[list[Start], dict[int, list[Visit]]]:
    """Return the structures that dynamics can start from, and why others cannot."""
    structures = [start.atoms for start in begins]
    answers = calculate_each(structures, calculator, ("energy", "forces"))
    sound: list[Start] = []
    refused: dict[int, list[Visit]] = {}
    for start, answer in zip(begins, answers, strict=True):
        reason: str | None
        if isinstance(answer, StructureError | CalculationFailed):
            reason = f"not_finite: {answer}"
        elif isinstance(answer, Exception):
            raise answer
        else:
            n_pieces = count_pieces(start.atoms, limits.evaporated_A)
            reason = why_forces_diverged(
                answer["energy"], answer["forces"], limits, before=None
            ) or why_shape_diverged(start.atoms, limits, n_pieces=n_pieces)
        if reason is None:
            sound.append(start)
        else:
            refused[start.number] = [Visit(start.atoms.positions.copy(), 0, reason)]
    return sound, refused
