"""The run folder: resolved config, metrics, checkpoint, and how a run is resumed.

config.yaml       the configuration with every default spelled out
start.pt          the student before the first step, with its units and references
metrics.jsonl     one JSON object per logged step or validation
checkpoint.pt     everything needed to continue bit for bit
student.pt        the exported student, when the run has ended
feature_head.pt   the linear head P, for embedding metrics
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml

from crack_md.errors import CheckpointError, ConfigError, DataError
from crack_md.files import Claim, atomic_path, remove_leftovers, write_text
from crack_md.training.config import TrainConfig, dump_config, load_config

FORMAT_VERSION = 1

MAY_CHANGE = frozenset(
    f"run.{key}"
    for key in (
        "folder",
        "accumulate",
        "compile",
        "max_steps",
        "max_seconds",
        "log_every",
        "validate_every",
        "checkpoint_every",
        "checkpoint_every_s",
        "accelerator",
        "devices",
        "num_nodes",
    )
) | {"data.store"}
"""Settings that may differ when a run is resumed: they leave the optimum alone."""


class RunFolder:
    """The files of one run. With ``writes`` false (other ranks) it only reads."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self._claim: Claim | None = None
        self._logged: set[tuple[str, ...]] = set()

    @property
    def config_file(self) -> Path:
        """Return where the resolved configuration lies."""
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        """Return where the metrics lie."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint_file(self) -> Path:
        """Return where the latest checkpoint lies."""
        return self.path / "checkpoint.pt"

    @property
    def start_file(self) -> Path:
        """Return where the student before the first step lies."""
        return self.path / "start.pt"

    @property
    def student_file(self) -> Path:
        """Return where the exported student lies."""
        return self.path / "student.pt"

    @property
    def head_file(self) -> Path:
        """Return where the linear head of the feature losses lies."""
        return self.path / "feature_head.pt"

    def open(self, config: TrainConfig) -> None:
        """Create the folder, or check that the run in it is the same one.

        One process at a time may write to it, from here to `close`.

        Raises:
            ConfigError: The folder cannot be written, or holds another run.
            DataError: Another process writes to it.
        """
        self.check(config)
        if not self.writes:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._claim = Claim(
                self.path,
                self.path / ".lock",
                advice="choose another with --set run.folder=PATH",
            )
            for file in (
                self.config_file,
                self.metrics_file,
                self.checkpoint_file,
                self.start_file,
                self.student_file,
                self.head_file,
            ):
                remove_leftovers(file)
            self.check(config)  # another process may just have ended
            write_text(self.config_file, dump_config(config))
        except OSError as error:
            raise ConfigError(
                f"run.folder {self.path}: cannot be written ({error.strerror}); "
                "choose another with --set run.folder=PATH"
            ) from None

    def close(self) -> None:
        """Let other processes write to the folder."""
        if self._claim is not None:
            self._claim.release()

    def check(self, config: TrainConfig) -> None:
        """Refuse a configuration other than that of the run in the folder.

        Raises:
            ConfigError: The folder holds another run.
        """
        if not self.checkpoint_file.exists():
            return
        # read as a configuration: settings newer than the run get their defaults
        before = _flat(yaml.safe_load(dump_config(load_config(self.config_file))))
        after = _flat(yaml.safe_load(dump_config(config)))
        changed = [
            f"{key} was {before.get(key)!r}, now {after.get(key)!r}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key) and key not in MAY_CHANGE
        ]
        if changed:
            raise ConfigError(
                f"{self.path} holds a run with other settings ({'; '.join(changed)}); "
                "restore them to resume, or choose another run.folder"
            )

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line of metrics, unless there is one of its kind and step.

        A finished run validates once more when its command is repeated.

        Raises:
            DataError: The folder is gone, or its disk is full.
        """
        if not self.writes or _name_of(record) in self._logged:
            return
        with (
            _explained(self.path),
            self.metrics_file.open("a") as file,
        ):
            file.write(json.dumps(record) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return all logged records; without the last where a kill has cut it short.

        Raises:
            DataError: The file is damaged in another place.
        """
        if not self.metrics_file.exists():
            return []
        *lines, last = self.metrics_file.read_text(encoding="utf-8").split("\n")
        try:
            records = [json.loads(line) for line in lines if line]
        except ValueError as error:
            raise DataError(
                f"{self.metrics_file}: damaged ({error}); remove the broken line, or "
                "the file, to go on"
            ) from None
        with suppress(ValueError):  # no end of the line, but all of it
            records += [json.loads(last)] if last else []
        return records

    def forget_after(self, step: int) -> None:
        """Drop the records of steps that a resumed run will do again."""
        if not self.writes or not self.metrics_file.exists():
            return
        kept = [record for record in self.metrics() if record["step"] <= step]
        self._logged = {_name_of(record) for record in kept}
        with _explained(self.path):
            lines = (json.dumps(record) + "\n" for record in kept)
            write_text(self.metrics_file, "".join(lines))

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write a checkpoint; a crash in between leaves the one before.

        Raises:
            DataError: The folder is gone, or its disk is full.
        """
        if self.writes:
            with _explained(self.path), atomic_path(self.checkpoint_file) as temporary:
                torch.save({"format_version": FORMAT_VERSION, **state}, temporary)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the checkpoint, or None where the run has not got that far.

        Raises:
            CheckpointError: The file is damaged or of an unknown version.
        """
        path = self.checkpoint_file
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"{path}: cannot be read ({type(error).__name__}); "
                "delete it to start this run again"
            ) from None
        if not isinstance(state, dict) or state.get("format_version") != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: not a training checkpoint of format {FORMAT_VERSION}; "
                "finish the run with the crack-md that began it"
            )
        return state


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Say in one line why a folder cannot be written, which PyTorch does at length."""
    try:
        yield
    except (OSError, RuntimeError, DataError) as error:
        cause = error.__cause__ or error  # files are named by us, and not by the system
        reason = " ".join(str(cause).split())[:160]
        if "PytorchStreamWriter" in reason:
            reason = "the disk is full, most likely"
        raise DataError(
            f"cannot write to {folder}: {reason}; the same command continues from the "
            "last checkpoint"
        ) from error


def _name_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    return (str(record.get("step")), *sorted(record))


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, dict):
        items = [(f"{path}.{key}" if path else str(key), tree[key]) for key in tree]
    elif isinstance(tree, list):
        items = [(f"{path}.{index}", value) for index, value in enumerate(tree)]
    else:
        return {path: tree}
    return {
        key: value for name, part in items for key, value in _flat(part, name).items()
    }
