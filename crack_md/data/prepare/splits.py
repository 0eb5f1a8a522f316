"""Which system belongs to which split, and what a prepared dataset says about itself.

A split is a rule, or a list that others can use. A list is a text file beside the data,
`NAME.splits.csv`, with a line for every system:

    system,split
    random1234567,train
"""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ase import Atoms

from crack_md.data.dataset import (
    SPLITS,
    LabelledStructure,
    fingerprint,
    labelled_structure,
)
from crack_md.data.readers import read_structures
from crack_md.data.splits import check_shares, split_of
from crack_md.errors import ConfigError, DataError

HEADER = ("system", "split")


@dataclass(frozen=True)
class SplitPlan:
    """How systems are divided; all frames of a system share one split."""

    val: float = 0.05
    test: float = 0.05
    seed: int = 0
    """Chooses the systems."""
    everything: str | None = None
    """One split for all, for sets that were published as train, val or test."""
    listed: Mapping[str, str] | None = None
    """A list to follow; systems that are not in it are left out."""

    def __post_init__(self) -> None:
        """Refuse shares that cannot be."""
        check_shares(val=self.val, test=self.test)

    def split_of(self, system: str) -> str | None:
        """Return train, val or test, or None for systems to be left out."""
        if self.listed is not None:
            return self.listed.get(system)
        if self.everything is not None:
            return self.everything
        # no atoms: that a pair of elements is held out is not asked for here
        return split_of(Atoms(), system, val=self.val, test=self.test, seed=self.seed)


def parse_plan(text: str | None, *, seed: int, listed: Path | None) -> SplitPlan:
    """Return the plan of `--split` or `--splits`.

    Args:
        text: Such as `val=0.05,test=0.05`, or the one split of all systems.
        seed: Chooses the systems.
        listed: A list of splits.

    Raises:
        ConfigError: The text says nothing of that kind, or both are given.
        DataError: The list cannot be read.
    """
    if listed is not None:
        if text is not None:
            raise ConfigError("--split and --splits exclude each other; give one")
        return SplitPlan(listed=read_splits(listed))
    if text is None:
        return SplitPlan(seed=seed)
    if text in SPLITS:
        return SplitPlan(everything=text)
    shares = {"val": 0.0, "test": 0.0}
    for word in text.split(","):
        name, _, share = word.strip().partition("=")
        try:
            shares[name] = {"val": float, "test": float}[name](share)
        except (KeyError, ValueError):
            raise ConfigError(
                f"--split {text}: cannot read '{word.strip()}'; expected for example "
                "val=0.05,test=0.05, or one of train, val, test for all systems"
            ) from None
    return SplitPlan(val=shares["val"], test=shares["test"], seed=seed)


def splits_path(dataset: Path) -> Path:
    """Return where the list of a dataset's splits is written."""
    return dataset.with_name(f"{dataset.stem}.splits.csv")


def write_splits(path: Path, splits: Mapping[str, str]) -> None:
    """Write the list; it appears complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(sorted(splits.items()))
    temporary.replace(path)


def read_splits(path: Path) -> dict[str, str]:
    """Return the split of every system of a list.

    Raises:
        DataError: The file is missing, or a line is wrong; the message names it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the splits {path}: {error}") from error
    rows = [tuple(line.split(",")) for line in text.splitlines()]
    if not rows or rows[0] != HEADER:
        raise DataError(f"{path}, line 1: expected '{','.join(HEADER)}'")
    splits: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != 2 or row[1] not in SPLITS or not row[0]:
            raise DataError(
                f"{path}, line {number}: found '{','.join(row)}', expected a system "
                f"and one of {', '.join(SPLITS)}"
            )
        if splits.setdefault(row[0], row[1]) != row[1]:
            raise DataError(
                f"{path}, line {number}: {row[0]} is in {splits[row[0]]} already"
            )
    return splits


@dataclass
class DatasetSummary:
    """Counts and splits of a file of rows."""

    fingerprint: str = ""
    splits: dict[str, str] = field(default_factory=dict)
    """The split of every group."""
    frames: Counter[str] = field(default_factory=Counter)
    """Frames per split."""

    @property
    def systems(self) -> Counter[str]:
        """Return the groups per split."""
        return Counter(self.splits.values())


def summarize(path: Path) -> DatasetSummary:
    """Return the summary of a file; one row is in memory at a time."""
    summary = DatasetSummary()
    summary.fingerprint = fingerprint(_noting(path, summary))
    return summary


def _noting(path: Path, summary: DatasetSummary) -> Iterator[LabelledStructure]:
    for number, atoms in enumerate(read_structures(path), start=1):
        row = labelled_structure(atoms, f"{path}, structure {number}")
        split = row.split or "none"
        summary.splits[row.group] = split
        summary.frames[split] += 1
        yield row
