"""What small files grow to in memory, measured before a library unpacks them.

The values of LMDB files are JSON, deflated by zlib, which packs zeros a thousand times;
ASE unpacks .gz, .bz2 and .xz by itself, and makes room for the atoms that a POSCAR says
it has.
"""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from crack_md.errors import DataError

PACKED: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
"""What unpacks the files that ASE unpacks by itself."""
POSCARS = ("*POSCAR*", "*CONTCAR*", "*CENTCAR*", "*.vasp", "*.poscar")
LARGEST = 16 << 20
"""Bytes that any value may unpack to; four times as many for a file."""
MOST_PACKED = 50
"""Times that more may grow; rows with features and text grow two to ten times."""


def bounded_database(backend: type[Any], path: Path, **options: Any) -> Any:
    """Return a database of a backend for LMDB files that unpacks no bomb.

    Args:
        backend: ``LMDBDatabase`` of ase-db-backends.
        path: of a file that `check_lmdb` has passed.
        options: of the backend.

    Raises:
        DataError: the file promises more rows than it can hold, or, later on, a value
            unpacks to far more than its size.
    """

    class Bounded(backend):  # type: ignore[misc]
        def _get_txn(self, write: bool) -> Any:
            transaction = super()._get_txn(write)
            return transaction if write else _Measured(transaction, path)

        def _load_ids(self) -> None:
            promised, rows = self._nextid - 1, self.env.stat()["entries"]
            # ids of deleted rows are kept in the file, and take room there
            if promised > rows + path.stat().st_size // 2:
                raise _damaged(path, f"it says it has {promised} rows and has {rows}")
            super()._load_ids()

    return Bounded(path, **options)


class _Measured:
    """A transaction whose values are measured before anyone unpacks them."""

    def __init__(self, transaction: Any, path: Path) -> None:
        self._transaction, self._path = transaction, path

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._transaction.get(key)
        if value is not None:
            self._measure(value)
        return value

    def _measure(self, value: bytes) -> None:
        left = max(LARGEST, MOST_PACKED * len(value))
        unpacking, packed = zlib.decompressobj(), value
        while packed and left >= 0:
            left -= len(unpacking.decompress(packed, LARGEST))
            packed = unpacking.unconsumed_tail
        if left < 0:
            reason = f"{len(value)} bytes of it unpack to more than {MOST_PACKED} times"
            raise _damaged(self._path, reason)

    def commit(self) -> None:
        self._transaction.commit()


def check_packed(path: Path) -> None:
    """Unpack a file bit by bit, as far as its size allows.

    Raises:
        DataError: it is damaged, or unpacks to far more than its size.
    """
    left = max(4 * LARGEST, MOST_PACKED * path.stat().st_size)
    try:
        with PACKED[path.suffix](path, "rb") as file:
            while left >= 0 and (part := file.read(1 << 20)):
                left -= len(part)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}; copy it again") from error
    if left < 0:
        raise DataError(
            f"{path} unpacks to more than {MOST_PACKED} times its size; no file of "
            "structures does: unpack it yourself if you trust it"
        )


def check_poscar(path: Path) -> None:
    """Compare the counts of atoms with the lines there are, before ASE makes room.

    Raises:
        DataError: there are fewer lines than atoms.
    """
    with path.open("rb") as file:
        head = [line.split(b"!")[0].split() for line in islice(file, 7)]
        lines = len(head) + sum(1 for _ in file)
    for words in head[5:]:
        if words and all(word.isdigit() for word in words):
            # digits beyond 18 would be slow to read and change nothing
            count = sum(int(word[:18]) for word in words)
            if count > lines:
                raise DataError(
                    f"{path} says it has {count} atoms and has {lines} lines; it is "
                    "cut short or damaged"
                )
            return


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"cannot read {path}: {reason}; it is damaged: copy it again")
