"""Files and folders: whole or absent, one writer at a time, one set of conditions.

Everything the package writes goes through `write_atomically` or `atomic_path`: under a
temporary name, flushed to disk, then moved into place, so that a kill or a full disk
leaves the old file or the new one.
"""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crack_md.errors import DataError


class Claim:
    """The right to write to a file or folder, until `release` or the process ends.

    The process that has it may claim it again, to go on where it was interrupted,
    unless it says otherwise.

    Args:
        target: what is written to.
        lock_file: beside or in it; made where its folder exists.
        advice: what to do where another process has the claim.
        once: whether a second claim by the same process is refused as well.

    Raises:
        DataError: another process writes to it, or its disk has no locks.
    """

    def __init__(
        self, target: Path, lock_file: Path, *, advice: str, once: bool = False
    ) -> None:
        self._lock = FileLock(
            lock_file.resolve(),
            mode=0o644,
            is_singleton=not once,
            thread_local=False,
        )
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise DataError(
                f"another run is writing to '{target}'; wait for it, or {advice}"
            ) from None
        except (OSError, NotImplementedError) as error:  # some network disks
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"cannot lock '{target}' against other runs: {reason}; {advice}, on a "
                "disk that has locks"
            ) from error

    def release(self) -> None:
        """Let others write."""
        self._lock.release(force=True)


def claim_file(path: Path) -> Claim:
    """Return the right to write a file; ``.NAME.lock`` stays beside it."""
    return Claim(path, path.with_name(f".{path.name}.lock"), advice="give another name")


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of killed runs: ``.NAME.`` and a process or random name.

    Only who has the claim may do so.
    """
    for old in path.parent.glob(f".{path.name}.*"):
        if old.suffix != ".lock" and old.is_file():
            old.unlink(missing_ok=True)


def is_full_disk(error: BaseException) -> bool:
    """Return whether a file could not be written for lack of space."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = str(error)  # databases have errors of their own
    return any(words in text for words in ("disk is full", os.strerror(errno.ENOSPC)))


SETTINGS_FILE = "settings.json"
TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
"""Names that `atomic_path` gives while a file is written."""
PACKAGES = ("crack-md", "ase", "numpy", "torch", "phonopy")
"""What decides the numbers of most results."""


@contextlib.contextmanager
def claim_folder(folder: Path, *, advice: str = "give another --out") -> Iterator[None]:
    """Make a folder and keep other runs out of it.

    The lock is one of the operating system on ``.lock`` (POSIX and Windows), so that a
    killed run leaves none behind; its temporary files are removed.

    Args:
        folder: where one run may write.
        advice: what to do where that is not possible.

    Raises:
        DataError: it cannot be written, or another run is writing to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write to '{folder}': {error.strerror or error}; {advice}"
        ) from error
    claim = Claim(folder, folder / ".lock", advice=advice, once=True)
    try:
        remove_temporaries(folder)
        yield
    finally:
        claim.release()


def remove_temporaries(folder: Path) -> None:
    """Remove what killed runs have left half written; only who has the claim may."""
    for old in folder.glob(".*.tmp"):
        if TEMPORARY.fullmatch(old.name):
            with contextlib.suppress(OSError):
                old.unlink()


def keep_conditions(
    folder: Path, conditions: Mapping[str, Any], *, has_results: bool
) -> None:
    """Store what decides the numbers of a run, or check that it has not changed.

    Args:
        folder: of the run.
        conditions: ready for JSON.
        has_results: whether the folder holds anything that depends on them yet.

    Raises:
        DataError: the folder holds the run of other conditions.
    """
    path = folder / SETTINGS_FILE
    now = json.loads(json.dumps(conditions))
    if not (has_results and path.exists()):
        write_json(path, now)
        return
    changed = differences(read_json(path), now)
    if changed:
        raise DataError(
            f"'{folder}' holds a run of other settings: {changed}; give "
            "another --out, or remove the folder"
        )


def differences(found: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in words which values two sets of conditions do not share."""
    return ", ".join(
        f"{name} {found.get(name)!r} (now {now.get(name)!r})"
        for name in sorted({*found, *now})
        if found.get(name) != now.get(name)
    )


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside a file, and move what is written there into place.

    An error inside leaves the file as it was.

    Raises:
        DataError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write '{path}': {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, put it on disk and move it into place.

    Raises:
        DataError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, complete or not at all; its folder is made.

    Raises:
        DataError: it cannot be written.
    """
    with contextlib.suppress(OSError):  # said by what writes into it
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people: indented, with every letter as it is.

    Raises:
        DataError: it cannot be written.
    """
    text = json.dumps(
        content, indent=2, ensure_ascii=False, allow_nan=False, default=as_plain
    )
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path, *, may_miss: bool = False) -> Any:
    """Return the content of a JSON file that this package wrote.

    Args:
        path: of the file.
        may_miss: return None where there is no file.

    Raises:
        DataError: it cannot be read.
    """
    if may_miss and not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read '{path}': {error}; it is damaged: move it away, or use "
            "another folder"
        ) from error


def as_plain(value: Any) -> Any:
    """Return what JSON does not know, such as an array, as lists or text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def csv_bytes(
    rows: Sequence[Mapping[str, Any]],
    *,
    decimals: int | None = None,
    columns: Iterable[str] = (),
) -> bytes:
    """Return a table whose columns are the keys of the first row.

    Text that a spreadsheet would execute is defused.

    Args:
        rows: of equal keys.
        decimals: of floating-point numbers; None writes them in full.
        columns: the header of a table without rows.
    """
    names = list(rows[0]) if rows else list(columns)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row[name], decimals) for name in names])
    return buffer.getvalue().encode()


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def executes_in_spreadsheets(text: str) -> bool:
    """Return whether a spreadsheet would take a text for a formula."""
    if not text.startswith(FORMULA_STARTS):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def defuse(text: str) -> str:
    """Return a text for a CSV cell: an apostrophe keeps spreadsheets from executing it.

    A text that begins like a defused one gets another, so that `undefuse` is exact.
    """
    return f"'{text}" if executes_in_spreadsheets(text.lstrip("'")) else text


def undefuse(text: str) -> str:
    """Return the text that `defuse` was given."""
    armed = text.startswith("'") and executes_in_spreadsheets(text.lstrip("'"))
    return text[1:] if armed else text


def _cell(value: Any, decimals: int | None) -> Any:
    if isinstance(value, str):
        return defuse(value)
    if decimals is None or not isinstance(value, float):
        return value
    # adding zero turns -0.0 into 0.0
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the version of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
