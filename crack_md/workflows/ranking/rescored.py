"""What another model said of screened slabs, kept in a file beside the results.

Every result is appended as soon as it is there, so that a stopped run goes on.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from crack_md.errors import DataError

FILE_NAME = "rescored.jsonl"
COUNTING = ("single_point", "converged", "plateau")


@dataclass(frozen=True)
class Rescored:
    """What another model says of an adsorbate on one slab."""

    slab: str
    adsorbate: str
    site: str
    model: str
    sha256: str
    relaxed: bool
    screened_eV: float
    """ΔE of the screening."""
    dE_eV: float | None
    """ΔE by this model, against H2O and H2; None where there is none."""
    status: str
    """``single_point``, ``converged``, ``plateau`` (direct forces that no longer fall
    and are small), ``not_converged``, ``missing``, ``failed``, or an anomaly:
    ``desorbed``, ``dissociated``, ``intercalated``, ``surface_changed``."""
    moved_A: float | None = None
    """How far the adsorbate went from where the screening left it."""
    error: str = ""

    @property
    def counts(self) -> bool:
        """Return whether the energy may replace that of the screening."""
        return self.dE_eV is not None and self.status in COUNTING


def read_rescored(folder: Path) -> tuple[Rescored, ...]:
    """Return everything that other models have said of the slabs of a folder."""
    path = folder / FILE_NAME
    if not path.is_file():
        return ()
    return tuple(_lines(path.read_text(encoding="utf-8").splitlines()))


def _lines(lines: Iterable[str]) -> Iterator[Rescored]:
    for line in lines:
        try:
            yield Rescored(**json.loads(line))
        except (ValueError, TypeError):  # the last line of a run that was killed
            continue


def append_rescored(folder: Path, result: Rescored) -> None:
    """Keep a result in the folder of its screening.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        with (folder / FILE_NAME).open("a", encoding="utf-8") as file:
            # a newline first parts it from half a line of a killed run
            file.write("\n" + json.dumps(asdict(result), ensure_ascii=False) + "\n")
    except OSError as error:
        raise DataError(
            f"cannot write '{folder / FILE_NAME}': {error.strerror or error}"
        ) from error
