"""The files of a loop, and what every stage of it needs to know.

loop.yaml                      the configuration, every default spelled out
table.csv, table.json          what each round gained
student.pt                     the last student, when the loop has ended
round-N/seed-S/                training runs, as ``crack-md train`` leaves them
round-N/student.pt             the student that explores, with feature statistics
round-N/starts.aselmdb         where it starts
round-N/explored.aselmdb       all frames it came to
round-N/quarantine.extxyz      those that have diverged, with the reason
round-N/selected.aselmdb       those the teacher is asked for
round-N/labelled.aselmdb       those later rounds train on
round-N/train.json …           numbers of a stage, written when it is done
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import yaml
from ase import Atoms

from crack_md.data.dataset import LabelledDataset
from crack_md.data.labelling import SplitRule
from crack_md.data.readers import count_structures, read_structures
from crack_md.data.writer import RowWriter
from crack_md.errors import ConfigError
from crack_md.files import claim_folder, read_json, write_json, write_text
from crack_md.training.config import dump_config
from crack_md.training.on_policy.config import LoopConfig
from crack_md.training.on_policy.starts import QUARANTINE

Stage = Literal["train", "explore", "select", "label"]
MAY_CHANGE = ("folder", "rounds", "check_last")
"""Settings of a loop that may differ when it goes on; so may the number of workers."""


class LoopFolder:
    """The folder of one loop."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def round(self, number: int) -> "RoundFolder":
        """Return the folder of a round, made if it is missing."""
        return RoundFolder(self.path / f"round-{number}")

    @contextmanager
    def claimed(self, config: LoopConfig) -> Iterator[None]:
        """Keep other runs out; store the configuration, or check that it is the same.

        Raises:
            ConfigError: The folder holds the loop of another configuration.
            DataError: It cannot be written, or another run writes to it.
        """
        with claim_folder(self.path, advice="give another folder"):
            self._keep(config)
            yield

    def _keep(self, config: LoopConfig) -> None:
        path = self.path / "loop.yaml"
        now = dump_config(config)
        if path.exists():
            before = LoopConfig.model_validate(yaml.safe_load(path.read_text("utf-8")))
            changed = _changed(before, config)
            if changed:
                raise ConfigError(
                    f"{self.path} holds a loop with other settings of "
                    f"{', '.join(changed)}; restore them to go on, or give another "
                    "folder"
                )
        write_text(path, now)


class RoundFolder:
    """The folder of one round."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.student = path / "student.pt"
        self.generated = path / "generated.aselmdb"
        self.starts = path / "starts.aselmdb"
        self.explored = path / "explored.aselmdb"
        self.quarantine = path / "quarantine.extxyz"
        self.selected = path / "selected.aselmdb"
        self.labelled = path / "labelled.aselmdb"

    def member(self, seed: int) -> Path:
        """Return the training run with this seed."""
        return self.path / f"seed-{seed}"

    def record(self, stage: Stage) -> dict[str, Any] | None:
        """Return the numbers of a stage, None where it is not done."""
        return read_json(self.path / f"{stage}.json", may_miss=True)

    def write(self, stage: Stage, numbers: dict[str, Any]) -> dict[str, Any]:
        """Store the numbers of a stage, which is done with this; return them."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / f"{stage}.json", numbers)
        return numbers


class Stopwatch:
    """Seconds that a stage has taken, all starts of the program together."""

    def __init__(self, folder: RoundFolder, stage: Stage) -> None:
        self._path = folder.path / "seconds.json"
        self._stage = stage
        self._spent = float(
            (read_json(self._path, may_miss=True) or {}).get(stage, 0.0)
        )
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return the seconds so far."""
        return self._spent + time.monotonic() - self._started

    def note(self, *_: Any) -> None:
        """Store them; a kill loses what came after."""
        known = read_json(self._path, may_miss=True) or {}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, {**known, self._stage: round(self.seconds, 2)})

    def __enter__(self) -> "Stopwatch":
        """Return the watch."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Store the seconds, however the stage ended."""
        self.note()


def _changed(before: LoopConfig, after: LoopConfig) -> list[str]:
    old, new = (one.model_dump(mode="json") for one in (before, after))
    for tree in (old, new):
        tree["label"].pop("workers")
    return [key for key in new if key not in MAY_CHANGE and old[key] != new[key]]


@dataclass(frozen=True)
class Loop:
    """One start of the program on a loop."""

    config: LoopConfig
    folder: LoopFolder
    rule: SplitRule
    """How the dataset was divided."""
    read: Callable[[Path], LabelledDataset]
    """Reads a labelled set; it remembers those it has read."""
    say: Callable[[str], None]
    quiet: bool
    """The trainer prints nothing."""

    @property
    def base(self) -> LabelledDataset:
        """Return the dataset that the first round trains on."""
        return self.read(self.config.data)


def sound_frames(path: Path) -> Iterator[Atoms]:
    """Yield the frames of an exploration that have not diverged."""
    return (f for f in read_structures(path) if QUARANTINE not in f.info)


def count(path: Path) -> int:
    """Return how many structures a database holds; none where it is missing."""
    return (count_structures([path]) or 0) if path.exists() else 0


def write_rows(path: Path, structures: Sequence[Atoms]) -> None:
    """Write structures to a database; it appears complete or not at all."""
    RowWriter(path, job={}).discard()  # of a kill in between: all are written again
    writer = RowWriter(path, job={})
    writer.append(structures, done=len(structures))
    writer.finish({})
