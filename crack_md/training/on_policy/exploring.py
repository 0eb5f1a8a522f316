"""The stage that explores: frames that the student comes to, and how unsure it is."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import ase.io
from ase import Atoms

from crack_md.calculators import CrackCalculator
from crack_md.data.readers import read_structures
from crack_md.data.writer import RowWriter
from crack_md.models.checkpoint import load_model
from crack_md.models.teachers.base import file_sha256
from crack_md.training.on_policy.context import Loop, write_rows
from crack_md.training.on_policy.disagreement import build_measure
from crack_md.training.on_policy.divergence import category
from crack_md.training.on_policy.explore import explore
from crack_md.training.on_policy.folder import RoundFolder, Stopwatch
from crack_md.training.on_policy.starts import find_starts
from crack_md.training.on_policy.visits import QUARANTINE, Start
from crack_md.training.run import replacing


def explore_round(loop: Loop, number: int) -> None:
    """Explore with the student of a round, unless that is done."""
    here = loop.folder.round(number)
    if here.record("explore") is not None:
        return
    with Stopwatch(here, "explore") as watch:
        starts = _starts(loop, number, here)
        loop.say(f"round {number}: exploring from {len(starts)} structures")
        if not here.explored.exists():
            _write_explored(loop, number, here, starts, watch)
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
    loop: Loop, number: int, here: RoundFolder, starts: list[Start], watch: Stopwatch
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
        watch.note()
    writer.finish({"job": job})


def _chunks(starts: Sequence[Start], size: int) -> Iterator[Sequence[Start]]:
    for first in range(0, len(starts), size):
        yield starts[first : first + size]


def _write_quarantine(frames: Sequence[Atoms], path: Path) -> None:
    if frames:
        with replacing(path) as temporary:
            ase.io.write(temporary, list(frames), format="extxyz")
