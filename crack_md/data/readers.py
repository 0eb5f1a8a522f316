"""Structures from anything ASE reads, checked where they enter.

    ASE databases (.db, .json), LMDB databases (.aselmdb), extended XYZ, trajectories,
    CIF, POSCAR/CONTCAR, packed sets (`crack-md pack`), folders of any of these

Problems end in one line: what is wrong, in which file, at which row.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from crack_md.errors import DataError, StructureError
from crack_md.input_files import check_file, open_database
from crack_md.models.teachers.base import check_structure, file_sha256
from crack_md.structures import DATABASES, structure_files

MANIFEST = "packed.json"
"""What a packed set (`crack-md pack`) is known by."""


def read_structures(sources: Iterable[Path | str] | Path | str) -> Iterator[Atoms]:
    """Yield every structure of the given files and folders, in a fixed order.

    Key-value pairs and data of database rows arrive in `atoms.info`; stored energies
    and forces in a single-point calculator.

    Raises:
        DataError: A source is missing, empty or unreadable, or a structure cannot be
            used (no atoms, NaN positions, zero cell with PBC, unknown element).
    """
    if isinstance(sources, str | Path):
        sources = [sources]
    for source in sources:
        for path in source_files(Path(source)):
            yield from _read_file(path)


def count_structures(sources: Iterable[Path]) -> int | None:
    """Return how many structures databases hold; None where counting means reading."""
    files = [path for source in sources for path in source_files(source)]
    if any(path.suffix not in DATABASES for path in files):  # MANIFEST is a .json
        return None
    return sum(_count_rows(path) for path in files)


def contents_of(sources: Iterable[Path | str]) -> list[str]:
    """Return the SHA-256 of every file that the sources stand for."""
    files = [path for source in sources for path in source_files(Path(source))]
    return [file_sha256(path) for path in files]


def source_files(source: Path) -> tuple[Path, ...]:
    """Return the files that a file or a folder stands for, in a fixed order."""
    if source.exists() and not source.is_dir():
        check_file(source)
    return structure_files(source, also=frozenset({MANIFEST}))


def _read_file(path: Path) -> Iterator[Atoms]:
    count = 0
    frames = _rows_of(path)
    try:
        for count, atoms in enumerate(frames, start=1):
            _check(atoms, path, count)
            yield atoms
    except (DataError, GeneratorExit):
        raise
    except (
        Exception
    ) as error:  # ASE's readers raise whatever their format's parser does
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"cannot read {path} after {count} structures: {message}; expected a file "
            "that ASE reads (db, aselmdb, extxyz, traj, cif, POSCAR)"
        ) from error
    if count == 0:
        raise DataError(f"{path} contains no structures")


def _rows_of(path: Path) -> Iterator[Atoms]:
    if path.name == MANIFEST:
        from crack_md.data.packed import read_packed  # which reads with this

        return read_packed(path)
    return _database_rows(path) if path.suffix in DATABASES else _frames(path)


def _frames(path: Path) -> Iterator[Atoms]:
    check_file(path)
    yield from ase.io.iread(path, index=":")


def _database_rows(path: Path) -> Iterator[Atoms]:
    check_file(path)
    database = open_database(path)
    for row in database.select():
        atoms = row.toatoms()
        atoms.info = {**row.key_value_pairs, **_data_of(row)}
        yield atoms


def _count_rows(path: Path) -> int:
    if path.name == MANIFEST:
        from crack_md.data.packed import read_manifest

        return sum(part["structures"] for part in read_manifest(path)["parts"])
    try:
        return int(open_database(path).count())
    except Exception:  # reading says what is wrong with the file
        return 0


def _data_of(row: Any) -> dict[str, Any]:
    return dict(row.data) if row.data else {}


def _check(atoms: Atoms, path: Path, count: int) -> None:
    try:
        check_structure(atoms)
    except StructureError as error:
        raise DataError(f"{path}, structure {count}: {error}") from error


def manifest_of(path: Path) -> Path | None:
    """Return the manifest of a packed set, given it or its folder; None for others."""
    if path.name == MANIFEST:
        return path
    inside = path / MANIFEST
    return inside if inside.is_file() else None
