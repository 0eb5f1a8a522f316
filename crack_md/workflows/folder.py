"""Output folders: one run at a time, one set of conditions, files whole or absent."""

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ase import Atoms

from crack_md.errors import DataError

SETTINGS_FILE = "settings.json"
PACKAGES = ("crack-md", "ase", "numpy", "torch", "phonopy")


@contextlib.contextmanager
def claim_folder(folder: Path) -> Iterator[None]:
    """Make a folder and keep other runs out of it.

    Raises:
        DataError: it cannot be written, or another run is writing to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise DataError(
            f"cannot write to '{folder}': {error.strerror or error}; give another --out"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise DataError(
            f"another run is writing to '{folder}'; wait for it, or give another --out"
        ) from error
    finally:
        os.close(lock)


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
    found = read_json(path)
    names = sorted({*found, *now})
    differences = [
        f"{name} {found.get(name)!r} (now {now.get(name)!r})"
        for name in names
        if found.get(name) != now.get(name)
    ]
    if differences:
        raise DataError(
            f"'{folder}' holds a run of other settings: {', '.join(differences)}; give "
            "another --out, or remove the folder"
        )


def structure_sha256(atoms: Atoms) -> str:
    """Return the fingerprint of a structure: species, geometry, motion, constraints."""
    content = hashlib.sha256()
    for array in (
        atoms.numbers,
        atoms.positions,
        atoms.cell.array,
        atoms.pbc,
        atoms.get_momenta(),
        atoms.get_masses(),
    ):
        content.update(array.tobytes())
    held = [constraint.todict() for constraint in atoms.constraints]
    content.update(json.dumps(held, sort_keys=True, default=_plain).encode())
    return content.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, put it on disk and move it into place.

    Raises:
        DataError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write '{path}': {error.strerror or error}") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people: indented, with every letter as it is."""
    text = json.dumps(
        content, indent=2, ensure_ascii=False, allow_nan=False, default=_plain
    )
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Return the content of a JSON file of ours.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read '{path}': {error}; it is damaged: remove it, or give "
            "another --out"
        ) from error


def csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a table whose columns are the keys of the first row."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def package_versions() -> dict[str, str]:
    """Return the versions of what decides numbers, as far as it is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
