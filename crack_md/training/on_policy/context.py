"""What every stage of a loop needs to know."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from crack_md.data.dataset import LabelledDataset
from crack_md.data.labelling import SplitRule
from crack_md.data.readers import count_structures, read_structures
from crack_md.data.writer import RowWriter
from crack_md.training.on_policy.config import LoopConfig
from crack_md.training.on_policy.folder import LoopFolder
from crack_md.training.on_policy.visits import QUARANTINE


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
