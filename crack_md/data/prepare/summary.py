"""What a prepared dataset says about itself, found by reading it once more."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crack_md.data.dataset import LabelledStructure, fingerprint, labelled_structure
from crack_md.data.readers import read_structures


@dataclass
class Summary:
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


def summarize(path: Path) -> Summary:
    """Return the summary of a file; one row is in memory at a time."""
    summary = Summary()
    summary.fingerprint = fingerprint(_noting(path, summary))
    return summary


def _noting(path: Path, summary: Summary) -> Iterator[LabelledStructure]:
    for number, atoms in enumerate(read_structures(path), start=1):
        row = labelled_structure(atoms, f"{path}, structure {number}")
        split = row.split or "none"
        summary.splits[row.group] = split
        summary.frames[split] += 1
        yield row
