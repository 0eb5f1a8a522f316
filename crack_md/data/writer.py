"""Rows into files, in chunks that survive a kill."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from crack_md.errors import DataError
from crack_md.files import atomic_path, claim_file, is_full_disk, remove_leftovers
from crack_md.input_files import open_database

KEYS = ("group", "kind", "split", "surface", "adsorbate")
"""Entries of `atoms.info` that become searchable keys; the rest becomes data."""
CONTENTS = "contents"
"""Of a job: fingerprints of the files that it reads."""
SUFFIXES = (".aselmdb", ".db", ".extxyz", ".xyz")


class RowWriter:
    """Write rows to `NAME.partial.*`, then move the whole file into place.

    Args:
        path: Where the finished file goes; `.aselmdb`, `.db` or `.extxyz`.
        job: What determines the rows. A partial file of the same job is continued,
            any other is refused, so that two jobs never mix.
        overwrite: Replace a finished file.

    One process at a time has the claim to a path, from here to `finish` or `discard`.

    Raises:
        DataError: The file exists, cannot be written, is being written by another
            process, or was begun by another job.
    """

    def __init__(
        self, path: Path | str, *, job: dict[str, Any], overwrite: bool = False
    ) -> None:
        self.path = Path(path)
        self.job = job
        _check_target(self.path, overwrite=overwrite)
        # extended XYZ cannot be cut back to the last whole chunk, a database can
        suffix = self.path.suffix if self.path.suffix == ".aselmdb" else ".db"
        self.partial = self.path.with_name(f"{self.path.stem}.partial{suffix}")
        self.notes: dict[str, Any] = {}
        """What a run wants to know again when it continues, such as counts."""
        self._claim = claim_file(self.path)
        remove_leftovers(self.path)
        self.done = self._resume()

    def __enter__(self) -> "RowWriter":
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the partial file alone: it is what a second run continues."""

    def append(
        self, rows: Sequence[Atoms], *, done: int, notes: dict[str, Any] | None = None
    ) -> None:
        """Write rows, the number of items they complete and notes, all or nothing."""
        self.notes = self.notes if notes is None else notes
        metadata = {"job": self.job, "done": done, "notes": self.notes}
        with self._explained():
            if not self.partial.exists():
                self._create(metadata | {"done": 0})
            with _transaction(self.partial) as database:
                for atoms in rows:
                    keys = {key: atoms.info[key] for key in KEYS if key in atoms.info}
                    data = {k: v for k, v in atoms.info.items() if _is_data(k, v)}
                    database.write(atoms, key_value_pairs=keys, data=data)
                database.metadata = metadata
        self.done = done

    @property
    def n_rows(self) -> int:
        """Return how many rows there are, those of earlier starts included."""
        if not self.partial.exists():
            return 0
        return int(open_database(self.partial).count())

    def rows(self) -> Iterator[Atoms]:
        """Yield all rows written so far, as the readers do; one is in memory."""
        from crack_md.data.readers import read_structures

        if self.partial.exists():
            yield from read_structures(self.partial)

    def finish(self, metadata: dict[str, Any]) -> Path:
        """Store what the file says about itself and move it into place."""
        if not self.partial.exists():
            raise DataError(f"nothing was written to {self.path}: no structures came")
        with self._explained():
            if self.path.suffix in (".extxyz", ".xyz"):
                self._export(metadata)
            else:
                with _transaction(self.partial) as database:
                    database.metadata = metadata
                self.partial.replace(self.path)
        _remove_leftovers(self.partial)
        self._claim.release()
        return self.path

    def discard(self) -> None:
        """Remove what was written so far."""
        self.partial.unlink(missing_ok=True)
        _remove_leftovers(self.partial)
        self._claim.release()

    def _create(self, metadata: dict[str, Any]) -> None:
        """Make an empty partial file that says which job it belongs to.

        Under another name first: a kill or a full disk in between leaves nothing that
        the next start would have to understand.
        """
        begun = self.path.with_name(f".{self.path.name}.begun{self.partial.suffix}")
        begun.unlink(missing_ok=True)
        with _transaction(begun) as database:
            database.metadata = metadata
        _remove_leftovers(begun)
        begun.replace(self.partial)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say in one line that a disk is full, whatever the database calls it."""
        try:
            yield
        except Exception as error:
            if not (isinstance(error, OSError) or is_full_disk(error)):
                raise
            words = " ".join(str(error).split())
            raise DataError(
                f"cannot write {self.path}: {words}; free some space and repeat the "
                f"command, it continues after {self.done} items"
            ) from error

    def _resume(self) -> int:
        if not self.partial.exists():
            return 0
        try:
            metadata = dict(open_database(self.partial).metadata)
        except Exception as error:
            raise DataError(
                f"cannot continue {self.partial}: {error}; delete it to start again"
            ) from error
        if not metadata and not self.n_rows:  # killed while an older version made it
            self.partial.unlink()
            _remove_leftovers(self.partial)
            return 0
        stored, now = metadata.get("job"), json.loads(json.dumps(self.job))
        if isinstance(stored, dict) and CONTENTS not in stored:  # by an older version
            now.pop(CONTENTS, None)
        if stored != now:
            raise DataError(
                f"{self.partial} was begun with other inputs or options; delete it to "
                "start again, or repeat the first command to continue it"
            )
        self.notes = dict(metadata.get("notes", {}))
        return int(metadata["done"])

    def _export(self, metadata: dict[str, Any]) -> None:
        frames = list(self.rows())
        frames[0].info["metadata"] = json.dumps(metadata)
        for atoms in frames:
            for name in [
                n for n, value in atoms.info.items() if n.startswith("teacher_")
            ]:
                value = np.asarray(atoms.info[name])
                if value.ndim and len(value) == len(atoms):
                    atoms.set_array(name, value)
                    del atoms.info[name]
        with atomic_path(self.path) as temporary:
            ase.io.write(temporary, frames, format="extxyz")
        self.partial.unlink()


@contextmanager
def _transaction(path: Path) -> Iterator[Any]:
    """Open a database to write all that the block writes, or nothing.

    That of LMDB files would commit what it has when an error ends the block: the rows
    of a chunk without the number of items they complete, to be written once more.
    """
    database = open_database(path, readonly=False)
    database.__enter__()
    try:
        yield database
    except BaseException as error:
        if path.suffix == ".aselmdb":
            database.txn.abort()
            database.close()
        else:
            database.__exit__(type(error), error, error.__traceback__)
        raise
    database.__exit__(None, None, None)


def _is_data(key: str, value: Any) -> bool:
    """Return whether an entry of `info` is data that a database can hold."""
    plain = (str, int, float, bool, list, np.ndarray, np.generic)
    return key not in KEYS and isinstance(value, plain)


def _check_target(path: Path, *, overwrite: bool) -> None:
    if path.suffix not in SUFFIXES:
        raise DataError(
            f"cannot write {path}: unknown ending '{path.suffix}'; expected one of "
            + ", ".join(SUFFIXES)
        )
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists; choose another name or pass --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot create the folder {path.parent}: {error}") from error
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"cannot write into {path.parent}: permission denied")


def _remove_leftovers(partial: Path) -> None:
    for name in (f"{partial.name}-lock", f"{partial.name}.lock"):
        partial.with_name(name).unlink(missing_ok=True)
