"""The stage that explores: frames that the student comes to, and how unsure it is."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculationFailed
from ase.optimize import LBFGS

from crack_md.calculators import CrackCalculator, run_together
from crack_md.calculators.batched import BatchCalculator, calculate_each
from crack_md.calculators.crack import feature_distance
from crack_md.data.readers import read_structures
from crack_md.data.writer import RowWriter
from crack_md.errors import ConfigError, StructureError
from crack_md.files import atomic_path
from crack_md.models.checkpoint import load_model
from crack_md.models.teachers.base import file_sha256
from crack_md.progress import show_progress
from crack_md.training.on_policy.config import (
    DivergenceLimits,
    Exploration,
    Relaxations,
)
from crack_md.training.on_policy.dynamics import (
    category,
    count_pieces,
    run_dynamics,
    why_forces_diverged,
    why_shape_diverged,
)
from crack_md.training.on_policy.folder import Loop, RoundFolder, Stopwatch, write_rows
from crack_md.training.on_policy.labelling import farthest_move
from crack_md.training.on_policy.starts import (
    QUARANTINE,
    RunKind,
    Start,
    Visit,
    find_starts,
)

Measure = Callable[[Sequence[Atoms]], list[float]]
UTTERLY = 1e6
"""Where a member of the committee has no answer, or an element no statistics."""


def build_measure(students: Sequence[Path], *, device: str = "auto") -> Measure:
    """Return what measures how unsure the first student is of each structure.

    With several students: the largest standard deviation of the force on an atom, eV/Å.
    With one: the distance of its farthest atom from the training data, in units of what
    999 of 1,000 training atoms stay below.

    Raises:
        ConfigError: A single student without feature statistics.
    """
    if len(students) > 1:
        return _spread(CrackCalculator(list(students), device=device))
    distance = feature_distance(CrackCalculator(students[0], device=device))
    if distance is None:
        raise ConfigError(
            f"{students[0]} has no feature statistics; make them with crack-md domain"
        )
    return lambda frames: [min(distance(atoms)[0], UTTERLY) for atoms in frames]


def _spread(committee: CrackCalculator) -> Measure:
    def measure(frames: Sequence[Atoms]) -> list[float]:
        answers = committee.calculate_many(frames, ("energy", "forces"))
        return [
            UTTERLY
            if isinstance(one, Exception)
            else float(np.linalg.norm(one["forces_std"], axis=1).max())
            for one in answers
        ]

    return measure


MAXSTEP_A = 0.15


def explore(
    starts: Sequence[Start],
    calculator: BatchCalculator | BaseCalculator,
    settings: Exploration,
    limits: DivergenceLimits,
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
    start: Start,
    calculator: BaseCalculator,
    *,
    settings: Relaxations,
    limits: DivergenceLimits,
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
    limits: DivergenceLimits,
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


def explore_round(loop: Loop, number: int) -> None:
    """Explore with the student of a round, unless that is done."""
    here = loop.folder.round(number)
    if here.record("explore") is not None:
        return
    with (
        Stopwatch(here, "explore") as watch,
        show_progress("exploring", None, quiet=loop.quiet) as show,
    ):

        def report(done: int) -> None:
            watch.note()
            show(done, len(starts))

        starts = _starts(loop, number, here)
        loop.say(f"round {number}: exploring from {len(starts)} structures")
        if not here.explored.exists():
            _write_explored(loop, number, here, starts, report)
        frames = list(read_structures(here.explored))
        bad = [frame for frame in frames if QUARANTINE in frame.info]
        _write_quarantine(bad, here.quarantine)
        counts = Counter(category(frame.info[QUARANTINE]) for frame in bad)
        numbers = {
            "n_starts": len(starts),
            "n_frames": len(frames),
            "n_quarantined": len(bad),
            "quarantined": dict(sorted(counts.items())),
            "seconds": round(watch.seconds, 1),
        }
    here.write("explore", numbers)


def _starts(loop: Loop, number: int, here: RoundFolder) -> list[Start]:
    if not here.starts.exists():
        structures, passed = find_starts(
            loop.config,
            loop.base,
            loop.rule,
            number=number,
            scratch=here.generated,
            elements=load_model(here.student).metadata.elements,
        )
        for reason, count in passed.items():
            loop.say(f"round {number}: passed over {count} structures {reason}")
        write_rows(here.starts, structures)
    stored = read_structures(here.starts)
    return [Start(place, atoms) for place, atoms in enumerate(stored)]


def _write_explored(
    loop: Loop,
    number: int,
    here: RoundFolder,
    starts: list[Start],
    report: Callable[[int], None],
) -> None:
    config = loop.config
    device, seed = config.explore.device, [config.seed, number]
    calculator = CrackCalculator(here.student, device=device)
    others = range(config.seed + 1, config.seed + config.train.committee)
    committee = [here.student, *(here.member(one) / "student.pt" for one in others)]
    measure = build_measure(committee, device=device)
    job = {
        "students": [file_sha256(path) for path in committee],
        "explore": config.explore.model_dump(mode="json"),
        "limits": config.limits.model_dump(mode="json"),
        "seed": seed,
    }
    writer = RowWriter(here.explored, job=job)
    for chunk in _chunks(starts[writer.done :], config.explore.together):
        with warnings.catch_warnings():
            # to leave the training data is what exploration is for
            warnings.filterwarnings("ignore", ".*do not trust the energy")
            frames = explore(
                chunk, calculator, config.explore, config.limits, seed=seed
            )
            sound = [frame for frame in frames if QUARANTINE not in frame.info]
            values = measure(sound)
        for frame, value in zip(sound, values, strict=True):
            frame.info["disagreement"] = value
        writer.append(frames, done=writer.done + len(chunk))
        report(writer.done)
    writer.finish({"job": job})


def _chunks(starts: Sequence[Start], size: int) -> Iterator[Sequence[Start]]:
    for first in range(0, len(starts), size):
        yield starts[first : first + size]


def _write_quarantine(frames: Sequence[Atoms], path: Path) -> None:
    if frames:
        with atomic_path(path) as temporary:
            ase.io.write(temporary, list(frames), format="extxyz")
