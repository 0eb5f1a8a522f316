"""Structures in, whatever file they come in: one entry per row, good or bad."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import ase.io
from ase import Atoms
from ase.db import connect

from crack_md.errors import DataError, MissingDependencyError

DATABASES = frozenset({".db", ".json", ".aselmdb"})
NAME_KEYS = ("name", "slab", "label", "slab_id")


@dataclass(frozen=True)
class Entry:
    """One row of the input; ``atoms`` is None where the row cannot be read."""

    name: str
    atoms: Atoms | None
    error: str = ""


def read_entries(path: Path) -> tuple[Entry, ...]:
    """Return all structures of a file under unique names.

    A row that cannot be read becomes an entry with an error; the rest goes on.

    Raises:
        DataError: the file is missing, empty, or nothing ASE can read.
    """
    if not path.exists():
        raise DataError(
            f"no such file: '{path}'; expected slabs in an ASE database, extxyz, traj, "
            "cif or POSCAR"
        )
    if path.is_dir():
        raise DataError(f"'{path}' is a folder; give a file with slabs")
    rows = _database_rows if path.suffix in DATABASES else _file_frames
    entries = tuple(rows(path))
    if not entries:
        raise DataError(f"'{path}' holds no structures; expected at least one slab")
    return _with_unique_names(entries)


def _database_rows(path: Path) -> Iterator[Entry]:
    kind = "aselmdb" if path.suffix == ".aselmdb" else "extract_from_name"
    try:
        database = connect(path, type=kind, use_lock_file=False)
        ids = [row.id for row in database.select(columns=["id"])]
    except (ImportError, AssertionError, KeyError) as error:
        if kind == "aselmdb":
            raise MissingDependencyError.of(
                "ase-db-backends", extra="train", purpose="Reading .aselmdb files"
            ) from error
        raise _unreadable(path, error) from error
    except Exception as error:
        raise _unreadable(path, error) from error
    for row_id in ids:
        name = f"{path.stem}-{row_id}"
        try:
            row = database.get(id=row_id)
            given = [row.get(key) for key in NAME_KEYS]
            name = next((str(value) for value in given if value is not None), name)
            atoms = row.toatoms()
        except Exception as error:  # one damaged row must not end the others
            yield Entry(name, None, f"row {row_id} cannot be read: {_short(error)}")
        else:
            yield Entry(name, atoms)


def _file_frames(path: Path) -> Iterator[Entry]:
    """Yield frames one by one: those before a damaged frame are good."""
    frames = ase.io.iread(path, index=":")
    number = 0
    while True:
        number += 1
        try:
            atoms = next(frames)
        except StopIteration:
            return
        except Exception as error:
            if number == 1:
                raise _unreadable(path, error) from error
            message = f"frame {number} cannot be read: {_short(error)}"
            yield Entry(f"{path.stem}-{number}", None, message)
            return
        given = [atoms.info.get(key) for key in NAME_KEYS]
        fallback = f"{path.stem}-{number}"
        name = next((str(value) for value in given if value is not None), fallback)
        yield Entry(name, atoms)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot read '{path}': {_short(error)}; expected slabs in an ASE database, "
        "extxyz, traj, cif or POSCAR"
    )


def _short(error: Exception) -> str:
    """Return an error as one line, with its type where it has no words."""
    text = " ".join(str(error).split())
    return text[:300] if text else type(error).__name__


def _with_unique_names(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    counts = Counter(entry.name for entry in entries)
    seen: Counter[str] = Counter()
    unique = []
    for entry in entries:
        seen[entry.name] += 1
        several = counts[entry.name] > 1
        name = f"{entry.name} #{seen[entry.name]}" if several else entry.name
        unique.append(replace(entry, name=" ".join(name.split())))
    return tuple(unique)
