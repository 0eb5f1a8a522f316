"""Files as they come from elsewhere, checked before a library is trusted with them.

LMDB trusts its file: a page that is not there, or an entry that says it is longer than
its page, ends the process with SIGBUS or SIGSEGV. The layout is that of LMDB 0.9 with
64-bit sizes: two meta pages, of which that with the larger transaction number counts,
then trees of branch and leaf pages, and overflow pages of large values.

What small files grow to in memory is measured before it is unpacked: values of LMDB
files are JSON, deflated by zlib, which packs zeros a thousand times; ASE unpacks .gz,
.bz2 and .xz by itself, and makes room for the atoms that a POSCAR says it has.
"""

import bz2
import gzip
import lzma
import mmap
import struct
import zlib
from collections.abc import Callable
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from ase.data import atomic_numbers
from ase.db import connect
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from crack_md.errors import ConfigError, DataError

MAGIC = 0xBEEFC0DE
HEADER = struct.Struct("<QHHHH")
"""Page number, padding, flags, and where the free space begins and ends."""
META = struct.Struct("<IIQQ48s48sQQ")
TREE = struct.Struct("<IHHQQQQQ")
NODE = struct.Struct("<HHHH")
BRANCH, LEAF, OVERFLOW = 0x01, 0x02, 0x04
LARGE, SUBTREE = 0x01, 0x02
EMPTY = 2**64 - 1
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


def check_lmdb(path: Path) -> None:
    """Refuse an LMDB file that cannot be read to its end.

    Raises:
        DataError: it is cut short, damaged, or no LMDB file.
    """
    size = path.stat().st_size
    if size < 2 * 4096:
        raise _damaged(path, f"it has {size} bytes")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        try:
            _Pages(data).check()
        except (ValueError, struct.error, IndexError) as error:
            raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"cannot read {path}: {reason}; expected a whole LMDB file, as crack-md or "
        "fairchem writes it: copy it again"
    )


class _Pages:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        first = META.unpack_from(data, HEADER.size)
        self._size = TREE.unpack(first[4])[0]
        if first[0] != MAGIC or self._size not in (2**n for n in range(9, 17)):
            raise ValueError("its first bytes are not those of LMDB")
        second = META.unpack_from(data, self._size + HEADER.size)
        metas = [meta for meta in (first, second) if meta[0] == MAGIC]
        newest = max(metas, key=lambda meta: meta[7])
        self._last = newest[6]
        if (self._last + 1) * self._size > len(data):
            expected = (self._last + 1) * self._size
            raise ValueError(f"it has {len(data)} of {expected} bytes")
        self._root = TREE.unpack(newest[5])[7]
        self._seen: set[int] = set()

    def check(self) -> None:
        waiting = [self._root]
        while waiting:
            page = waiting.pop()
            if page != EMPTY:
                waiting += self._children(page)

    def _claim(self, first: int, count: int = 1) -> None:
        pages = range(first, first + count)
        if first < 2 or pages[-1] > self._last or not self._seen.isdisjoint(pages):
            raise ValueError(f"page {first} of {self._last} is missing or used twice")
        self._seen.update(pages)

    def _children(self, page: int) -> list[int]:
        """Return the pages that a page refers to, all its entries checked."""
        self._claim(page)
        start = page * self._size
        number, _, flags, lower, upper = HEADER.unpack_from(self._data, start)
        kind = flags & (BRANCH | LEAF | OVERFLOW)
        sound = HEADER.size <= lower <= upper <= self._size and number == page
        if kind not in (BRANCH, LEAF) or not sound:
            raise ValueError(f"page {page} is damaged")
        count = (lower - HEADER.size) // 2
        places = struct.unpack_from(f"<{count}H", self._data, start + HEADER.size)
        found = [self._entry(start, place, kind) for place in places]
        return [child for child in found if child is not None]

    def _entry(self, start: int, place: int, kind: int) -> int | None:
        if not HEADER.size <= place <= self._size - NODE.size:
            raise ValueError(f"page {start // self._size} has a misplaced entry")
        low, high, flags, key = NODE.unpack_from(self._data, start + place)
        if kind == BRANCH:
            return int(low | high << 16 | flags << 32)
        length = low | high << 16
        held = 8 if flags & LARGE else length
        begin = start + place + NODE.size + key
        if begin + held > start + self._size:
            raise ValueError(f"page {start // self._size} has an entry without an end")
        if flags & LARGE:
            (first,) = struct.unpack_from("<Q", self._data, begin)
            self._claim(first, -(-(length + HEADER.size) // self._size))
        if flags & SUBTREE:
            return int(TREE.unpack_from(self._data, begin)[7])
        return None


class Section(BaseModel):
    """A part of the file: immutable, strict about its keys, and finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


AnySection = TypeVar("AnySection", bound=Section)


def read_section(path: Path, kind: type[AnySection], *, what: str) -> AnySection:
    """Return what a YAML file holds; a misspelt key is refused with its path.

    Args:
        path: of the file.
        kind: what it is read as.
        what: the same in words, such as ``recipe``.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong; says where.
    """
    content = read_yaml(path, what=f"a {what}")
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a {what}; expected a YAML mapping")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        raise ConfigError(f"{path}, {where}: {first['msg']}") from error


def _known_element(symbol: str) -> str:
    if symbol not in atomic_numbers or symbol == "X":
        raise ValueError(f"'{symbol}' is not a chemical element")
    return symbol


Element = Annotated[str, AfterValidator(_known_element)]


def check_file(path: Path, *, whole: bool = True) -> None:
    """Refuse what a reader would wait for, hang on, or die of.

    Args:
        path: of any kind.
        whole: also refuse extended XYZ whose last frame is cut short; its other frames
            can be read.

    Raises:
        DataError: no such file, a pipe or device, an empty file, an LMDB file that is
            damaged, a packed file that grows beyond measure, or extended XYZ or POSCAR
            with far fewer lines than it says.
    """
    check_regular(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path} is an empty file")
    if path.suffix == ".aselmdb":
        check_lmdb(path)
    elif path.suffix in (".xyz", ".extxyz"):
        _check_xyz(path, whole=whole)
    elif path.suffix in PACKED:
        _check_packed(path)
    elif any(fnmatch(path.name, pattern) for pattern in POSCARS):
        _check_poscar(path)


def check_regular(path: Path) -> None:
    """Refuse what is no file, before it is opened: a pipe waits for who writes to it.

    Raises:
        DataError: nothing there, a pipe or a device.
    """
    if not path.exists():
        raise DataError(f"no such file or folder: {path}")
    if not path.is_file():
        raise DataError(
            f"{path} is a pipe or a device; expected a file: save its content first"
        )


def open_database(path: Path, *, readonly: bool = True) -> Any:
    """Return an ASE database, `.aselmdb` included, whole as far as its pages tell.

    Raises:
        DataError: it is damaged.
    """
    if path.suffix != ".aselmdb":
        return connect(path, use_lock_file=False)
    from ase_db_backends.aselmdb import LMDBDatabase

    if path.exists():
        check_lmdb(path)
    return _bounded_database(LMDBDatabase, path, use_lock_file=False, readonly=readonly)


def parse_yaml(text: str, *, where: str) -> Any:
    """Return the content of YAML.

    Raises:
        ConfigError: it is none, or nested deeper than any configuration.
    """
    try:
        return yaml.safe_load(text)
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply to be a configuration") from None
    except (yaml.YAMLError, ValueError) as error:  # a date of month 13, say
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: not valid YAML: {reason}") from None


def read_yaml(path: Path, *, what: str) -> Any:
    """Return the content of a YAML file.

    Raises:
        ConfigError: it is missing, not YAML, or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if text is None:
        raise ConfigError(f"{path}: no such file; expected {what}")
    return parse_yaml(text, where=str(path))


def _check_xyz(path: Path, *, whole: bool) -> None:
    """Compare the counts of atoms with the lines there are, which ASE does not."""
    with path.open("rb") as file:
        frame = 0
        while line := file.readline().strip():
            frame += 1
            if not line.isdigit():
                return  # ASE says what it expects
            count = int(line[:18]) + 1
            found = sum(1 for _ in islice(file, min(count, path.stat().st_size)))
            short = found < count and not (found == count - 1 == 0)
            if short and (whole or frame == 1 or count > path.stat().st_size):
                raise DataError(
                    f"{path}: frame {frame} says it has {line[:18].decode()} atoms, "
                    f"and {max(found - 1, 0)} lines follow; it is cut short or damaged"
                )


def _bounded_database(backend: type[Any], path: Path, **options: Any) -> Any:
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


def _check_packed(path: Path) -> None:
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


def _check_poscar(path: Path) -> None:
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
