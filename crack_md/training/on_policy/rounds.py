"""The loop: train, explore, select, label, and again; resumable after any kill.

Every stage leaves its numbers in a file when it is done, and is skipped where that file
is there. What lies between is resumed by whoever does it: the trainer by its
checkpoint, exploration and labelling by the rows that are written.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from crack_md.calculators import CrackCalculator
from crack_md.data.dataset import read_dataset
from crack_md.data.labelling import label_structures, labels_by
from crack_md.data.readers import count_structures, read_structures
from crack_md.data.wanted import FeatureChoice, Wanted
from crack_md.data.writer import RowWriter
from crack_md.errors import DataError
from crack_md.models.checkpoint import load_model
from crack_md.models.teachers.base import file_sha256
from crack_md.training.on_policy.config import LoopConfig
from crack_md.training.on_policy.disagreement import build_measure
from crack_md.training.on_policy.divergence import category
from crack_md.training.on_policy.explore import explore
from crack_md.training.on_policy.folder import LoopFolder, RoundFolder, Stopwatch
from crack_md.training.on_policy.select import choose_frames
from crack_md.training.on_policy.starts import find_starts, split_rule
from crack_md.training.on_policy.student import errors_on, train_round
from crack_md.training.on_policy.table import write_table
from crack_md.training.on_policy.visits import QUARANTINE, Start
from crack_md.training.run import replacing

Say = Callable[[str], None]


def run_loop(
    config: LoopConfig, *, quiet: bool = False, say: Say = lambda line: None
) -> str | None:
    """Do all rounds, or what is left of them.

    Args:
        config: The loop.
        quiet: The trainer prints nothing.
        say: Called with a line about every stage.

    Returns:
        The signal that stopped it early, None at the end.

    Raises:
        ConfigError: The folder holds another loop, or the recipe does not work.
        DataError: The folder or the data cannot be used.
    """
    folder = LoopFolder(config.folder)
    with folder.claimed(config):
        return _Loop(config, folder, quiet, say).run()


class _Loop:
    """One start of the program on a loop."""

    def __init__(
        self, config: LoopConfig, folder: LoopFolder, quiet: bool, say: Say
    ) -> None:
        self.config, self.folder, self.quiet, self.say = config, folder, quiet, say
        self.read = lru_cache(maxsize=None)(read_dataset)
        self.rule = split_rule(config, self.read(config.data))

    def run(self) -> str | None:
        config = self.config
        for number in range(config.rounds + 1):
            here, is_last = self.folder.round(number), number == config.rounds
            if here.record("train") is None:
                self.say(f"round {number}: training")
                stopped_by = train_round(
                    config,
                    self.folder,
                    number=number,
                    replay=self._replay(number),
                    read=self.read,
                    quiet=self.quiet,
                )
                if stopped_by is not None:
                    return stopped_by
                write_table(self.folder, config.rounds)
            if not is_last or config.check_last:
                self._explore(number, here)
            if not is_last:
                self._select(number, here)
                self._label(number, here)
            write_table(self.folder, config.rounds)
        with replacing(self.folder.path / "student.pt") as temporary:
            temporary.write_bytes(here.student.read_bytes())
        return None

    def _replay(self, number: int) -> list[tuple[Path, int]]:
        """Return the labelled sets of the rounds before, and how often they count."""
        rounds = [self.folder.round(earlier) for earlier in range(number)]
        sets = [one.labelled for one in rounds if _count(one.labelled)]
        base = self.read(self.config.data)
        n_old = len(base.select("train") or base.structures)
        n_new = sum(_count(path) for path in sets)
        repeats = self.config.mix.repeats_of(n_old, n_new)
        return [(path, repeats) for path in sets]

    def _students(self, here: RoundFolder) -> list[Path]:
        """Return the student that explores, and the rest of its committee."""
        config = self.config
        others = range(config.seed + 1, config.seed + config.train.committee)
        return [here.student, *(here.member(seed) / "student.pt" for seed in others)]

    def _explore(self, number: int, here: RoundFolder) -> None:
        if here.record("explore") is not None:
            return
        with Stopwatch(here, "explore") as watch:
            starts = self._starts(number, here)
            self.say(f"round {number}: exploring from {len(starts)} structures")
            if not here.explored.exists():
                self._write_explored(number, here, starts, watch)
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

    def _starts(self, number: int, here: RoundFolder) -> list[Start]:
        if not here.starts.exists():
            structures, passed = find_starts(
                self.config,
                self.read(self.config.data),
                number=number,
                scratch=here.generated,
                elements=load_model(here.student).metadata.elements,
            )
            for reason, count in passed.items():
                self.say(f"round {number}: passed over {count} structures {reason}")
            _write_rows(here.starts, structures)
        stored = read_structures(here.starts)
        return [Start(place, atoms) for place, atoms in enumerate(stored)]

    def _write_explored(
        self, number: int, here: RoundFolder, starts: list[Start], watch: Stopwatch
    ) -> None:
        config = self.config
        calculator = CrackCalculator(here.student, device=config.explore.device)
        measure = build_measure(self._students(here), device=config.explore.device)
        job = {
            "student": file_sha256(here.student),
            "explore": config.explore.model_dump(mode="json"),
            "limits": config.limits.model_dump(mode="json"),
            "seed": [config.seed, number],
        }
        writer = RowWriter(here.explored, job=job)
        for chunk in _chunks(starts[writer.done :], config.explore.together):
            frames = explore(
                chunk,
                calculator,
                config.explore,
                config.limits,
                seed=[config.seed, number],
            )
            sound = [frame for frame in frames if QUARANTINE not in frame.info]
            for frame, value in zip(sound, measure(sound), strict=True):
                frame.info["disagreement"] = value
            writer.append(frames, done=writer.done + len(chunk))
            watch.note()
        writer.finish({"job": job})

    def _select(self, number: int, here: RoundFolder) -> None:
        if here.record("select") is not None:
            return
        frames = [f for f in read_structures(here.explored) if QUARANTINE not in f.info]
        chosen = choose_frames(
            [frame.info["disagreement"] for frame in frames],
            [int(frame.info["start"]) for frame in frames],
            [frame.positions for frame in frames],
            self.config.select,
            random=np.random.default_rng([self.config.seed, number, 1]),
        )
        for place, by in chosen.items():
            frames[place].info["chosen_by"] = by
        if not here.selected.exists():
            _write_rows(here.selected, [frames[place] for place in chosen])
        values = [frames[place].info["disagreement"] for place in chosen]
        here.write(
            "select",
            {
                "n_selected": len(chosen),
                "n_random": list(chosen.values()).count("random"),
                "lowest_disagreement": min(values, default=None),
                "highest_disagreement": max(values, default=None),
            },
        )

    def _label(self, number: int, here: RoundFolder) -> None:
        if here.record("label") is not None:
            return
        n_selected = _count(here.selected)
        self.say(f"round {number}: labelling {n_selected} frames")
        with Stopwatch(here, "label") as watch:
            if not here.labelled.exists() and n_selected:
                label_structures(
                    [here.selected],
                    here.labelled,
                    teacher=self.config.teacher,
                    split=self.rule,
                    wanted=Wanted(self._features()),
                    largest_force=self.config.label.largest_force,
                    workers=self.config.label.workers,
                    report=watch.note,
                )
            seconds = round(watch.seconds, 1)
        n_labelled = _count(here.labelled)
        own = self._own_errors(here) if n_labelled else {}
        numbers = {
            "n_labelled": n_labelled,
            "n_dropped": n_selected - n_labelled,
            "own": own,
            "seconds": seconds,
        }
        here.write("label", numbers)
        self._compare_teachers(number, here, n_labelled)

    def _own_errors(self, here: RoundFolder) -> dict[str, object]:
        """Return the student's errors on its own frames, which it was not trained on.

        Raises:
            DataError: A frame is not one to train on.
        """
        frames = self.read(here.labelled).structures
        if any(one.split != "train" for one in frames):
            raise DataError(f"{here.labelled} holds frames that test the student")
        by = [atoms.info["chosen_by"] for atoms in read_structures(here.labelled)]
        student = load_model(here.student)
        parts = {
            name: [one for one, other in zip(frames, by, strict=True) if other == name]
            for name in ("random", "disagreement")
        }
        return {
            name: errors_on(student, part)
            for name, part in {"all": list(frames), **parts}.items()
        }

    def _features(self) -> FeatureChoice:
        if self.config.label.features != "auto":
            return self.config.label.features
        return "invariant" if self.read(self.config.data).has_features else "none"

    def _compare_teachers(
        self, number: int, here: RoundFolder, n_labelled: int
    ) -> None:
        """Say so where old and new labels come from different teachers."""
        base = labels_by(self.read(self.config.data).metadata)
        if n_labelled and base[1]:
            new = labels_by(self.read(here.labelled).metadata)
            if new[1] != base[1]:
                self.say(
                    f"round {number}: new labels are by {new[0]}, those of "
                    f"{self.config.data} by {base[0]}: their energies must agree"
                )


def _count(path: Path) -> int:
    return (count_structures([path]) or 0) if path.exists() else 0


def _chunks(starts: Sequence[Start], size: int) -> Iterator[Sequence[Start]]:
    for first in range(0, len(starts), size):
        yield starts[first : first + size]


def _write_rows(path: Path, structures: Sequence[Atoms]) -> None:
    writer = RowWriter(path, job={})
    writer.discard()  # of a kill in between: rows are made again
    writer = RowWriter(path, job={})
    writer.append(structures, done=len(structures))
    writer.finish({})


def _write_quarantine(frames: Sequence[Atoms], path: Path) -> None:
    if frames:
        with replacing(path) as temporary:
            ase.io.write(temporary, list(frames), format="extxyz")
