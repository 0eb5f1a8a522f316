"""Structures from anything ASE reads: one entry per row, good or bad.

The rule for folders is here, for every command: which files count as structures, and
that a CONTCAR stands for the POSCAR beside it.
"""

import hashlib
import json
import logging
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import ase.io
import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.io.trajectory import TrajectoryReader

from crack_md.errors import ConfigError, DataError
from crack_md.files import as_plain, executes_in_spreadsheets, file_sha256
from crack_md.input_files import check_file, check_regular, open_database

NONMETALS = frozenset([1, 6, 7, 8, 9, 15, 16, 17, 34, 35, 53])
"""Atomic numbers of what may be an adsorbate on a metal; B and Si make alloys."""
DATABASES = frozenset({".db", ".json", ".aselmdb"})
IN_FOLDERS = frozenset(
    [
        *(".db", ".aselmdb", ".extxyz", ".xyz", ".traj", ".cif", ".vasp"),
        *(".poscar", ".contcar", ".xsf", ".xsd", ".gen", ".pdb"),
    ]
)
"""Endings that are read from a folder, and .json where it is an ASE database."""
VASP_NAME = re.compile(r"(POSCAR|CONTCAR)(?![a-z])", re.IGNORECASE)
"""What VASP's names begin with: POSCAR, CONTCAR, POSCAR_Pd, CONTCAR.1."""
RUN_OUTPUT = ("OUTCAR", "XDATCAR", "vasprun")
RUN_TYPES = ("optimization", "molecular-dynamics")
"""What ASE writes into the trajectories of its optimizers and dynamics."""
MOST_MOVED_A = 1.0
SHOWN_FILES = 8
Frames = Literal["last", "all"]
log = logging.getLogger(__name__)
NAME_KEYS = ("name", "slab", "label", "slab_id")
EXPECTED = "an ASE database, extxyz, traj, cif, POSCAR, or a folder of these"


@dataclass(frozen=True)
class StructureEntry:
    """One row of the input; ``atoms`` is None where the row cannot be read."""

    name: str
    atoms: Atoms | None
    error: str = ""
    status: str = "unreadable"
    """What the table says where there are no atoms."""
    notes: tuple[str, ...] = ()
    """What was done to get here, in words for the table."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Key-value pairs of a database row, for the table."""
    average: Atoms | None = None
    """The crystal whose sites are occupied in part, which is why there are no atoms."""


def read_entries(
    path: Path, *, select: str | None = None, frames: Frames = "all"
) -> tuple[StructureEntry, ...]:
    """Return all structures of a file or folder under unique names.

    A row that cannot be read becomes an entry with an error; the rest goes on. So does
    a file of a folder. Which files of a folder are left out is logged.

    Args:
        path: a file, or a folder that is searched to its depth.
        select: which rows of ASE databases to take, in ASE's words: ``metal=Pt,z<9``.
        frames: whether the last frame stands for a trajectory (`last_frames`).

    Raises:
        DataError: the file is missing, empty, or nothing ASE can read.
        ConfigError: ``select`` makes no sense, or there is no database to select from.
    """
    files = structure_files(path)
    if select is not None and not any(file.suffix in DATABASES for file in files):
        raise ConfigError(
            f"--select works on ASE databases, and '{path}' holds none; leave it out"
        )
    if path.is_dir():
        entries = tuple(
            entry for file in files for entry in _of_folder(file, path, select, frames)
        )
        _name_left_out(path, files)
    else:
        entries = tuple(_rows(path, select, frames))
    if not entries:
        chosen = f" that match --select '{select}'" if select is not None else ""
        raise DataError(
            f"'{path}' holds no structures{chosen}; expected at least one slab"
        )
    return with_unique_names(entries)


def structure_files(
    path: Path, *, also: frozenset[str] = frozenset()
) -> tuple[Path, ...]:
    """Return the file, or the structure files in a folder, by name.

    Where a folder holds both a POSCAR and a CONTCAR (of one suffix: POSCAR_Pd and
    CONTCAR_Pd), the latter is taken, unless it is empty: it is where the relaxation
    ended. Hidden files are left out.

    Args:
        path: a file, or a folder that is searched to its depth.
        also: names of further files that count.

    Raises:
        DataError: there is none.
    """
    if not path.exists():
        raise DataError(f"no such file: '{path}'; expected structures in {EXPECTED}")
    if not path.is_dir():
        check_regular(path)
        return (path,)
    files = tuple(
        file
        for file in sorted(path.rglob("*"))
        if file.name in also or _is_structure_file(file, path)
    )
    if not files:
        raise DataError(
            f"the folder '{path}' holds no structures; expected files named "
            f"POSCAR, CONTCAR or *{', *'.join(sorted(IN_FOLDERS))}"
        )
    return files


def _is_structure_file(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    if hidden or not file.is_file():
        return False
    vasp = VASP_NAME.match(file.name)
    if vasp is not None:
        rest = file.name[vasp.end() :]
        relaxed = file.with_name(f"CONTCAR{rest}")
        ended = relaxed.exists() and relaxed.stat().st_size > 0
        return (vasp[1].upper() == "CONTCAR") == ended
    if file.suffix.lower() == ".json":
        return _is_json_database(file)
    return file.suffix.lower() in IN_FOLDERS


def _is_json_database(file: Path) -> bool:
    """Return whether a JSON file ends as ASE's databases do; summaries do not."""
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - 100))
        return b'"nextid"' in opened.read()


def input_sha256(path: Path) -> str:
    """Return the hash of a file, or of the names and content of a folder's files."""
    if not path.is_dir():
        check_regular(path)
        return file_sha256(path)
    total = hashlib.sha256()
    for file in structure_files(path):
        total.update(str(file.relative_to(path)).encode() + b"\0")
        total.update(bytes.fromhex(file_sha256(file)))
    return total.hexdigest()


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
    content.update(json.dumps(held, sort_keys=True, default=as_plain).encode())
    return content.hexdigest()


def is_locked(error: Exception) -> bool:
    """Return whether somebody else holds an SQLite file."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _name_left_out(folder: Path, taken: tuple[Path, ...]) -> None:
    """Log the files of a folder that are not read, but for hidden ones."""
    inside = [file.relative_to(folder) for file in sorted(folder.rglob("*"))]
    left_out = [
        str(file)
        for file in inside
        if (folder / file).is_file()
        and folder / file not in taken
        and not any(part.startswith(".") for part in file.parts)
    ]
    if left_out:
        shown = ", ".join(left_out[:SHOWN_FILES])
        more = f" and {len(left_out) - SHOWN_FILES} more"
        log.warning(
            "left out of '%s', as no structures or replaced by a CONTCAR: %s%s",
            folder,
            shown,
            more if len(left_out) > SHOWN_FILES else "",
        )


def _rows(path: Path, select: str | None, frames: Frames) -> Iterator[StructureEntry]:
    if path.suffix in DATABASES:
        found = _database_rows(path, select)
    else:
        found = _file_frames(path)
        if frames == "last":
            found = last_frames(list(found), path)
    return map(_refuse_partial_occupancy, found)


def _of_folder(
    file: Path, folder: Path, select: str | None, frames: Frames
) -> Iterator[StructureEntry]:
    """Yield the entries of one file under names that say where it lies."""
    inside = file.relative_to(folder)
    is_vasp = VASP_NAME.fullmatch(file.name) is not None
    stem = inside.parent if is_vasp else inside.with_suffix("")
    place = str(stem) if str(stem) != "." else file.name
    try:
        entries = list(_rows(file, select, frames))
    except DataError as error:
        yield StructureEntry(place, None, str(error))
        return
    if not entries and select is None:
        yield StructureEntry(place, None, f"'{file}' holds no structures")
    for entry in entries:
        unnamed = entry.name.startswith(f"{file.stem}-")
        number = entry.name.removeprefix(f"{file.stem}-")
        several = f"{place}-{number}" if len(entries) > 1 else place
        yield replace(entry, name=several if unnamed else entry.name)


def _database_rows(path: Path, select: str | None) -> Iterator[StructureEntry]:
    try:
        database = open_database(path)
        ids = [row.id for row in database.select(columns=["id"])]
    except DataError:
        raise
    except Exception as error:
        if is_locked(error):
            raise DataError(
                f"'{path}' is being written by another program, which has locked it; "
                "wait for it, or give a copy"
            ) from error
        raise _unreadable(path, error) from error
    if select is not None:
        try:
            chosen = {row.id for row in database.select(select, columns=["id"])}
        except Exception as error:  # ASE raises what its parser happens to raise
            raise ConfigError(
                f"cannot read --select '{select}': {_short(error)}; expected "
                "conditions on columns such as metal=Pt,coverage<0.5 or a formula"
            ) from error
        ids = [number for number in ids if number in chosen]
    for row_id in ids:
        name = f"{path.stem}-{row_id}"
        try:
            row = database.get(id=row_id)
            given = [row.get(key) for key in NAME_KEYS]
            name = next((str(value) for value in given if value is not None), name)
            atoms, columns = row.toatoms(), dict(row.key_value_pairs)
        except Exception as error:  # one damaged row must not end the others
            yield StructureEntry(
                name, None, f"row {row_id} cannot be read: {_short(error)}"
            )
        else:
            yield StructureEntry(name, atoms, columns=columns)


def _file_frames(path: Path) -> Iterator[StructureEntry]:
    """Yield frames one by one: those before a damaged frame are good."""
    check_file(path, whole=False)
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
            yield StructureEntry(f"{path.stem}-{number}", None, message)
            return
        given = [atoms.info.get(key) for key in NAME_KEYS]
        fallback = f"{path.stem}-{number}"
        name = next((str(value) for value in given if value is not None), fallback)
        yield StructureEntry(name, atoms)


def last_frames(entries: list[StructureEntry], path: Path) -> Iterator[StructureEntry]:
    """Yield one entry for every trajectory of a file, its last frame.

    Frames are of one trajectory where a run wrote the file (ASE's optimizers and
    dynamics say so, output of VASP always is), or where they follow each other with the
    same atoms in the same cell, none of them moved by 1 Å. Given names part them.
    """
    whole = _is_of_a_run(path)
    groups: list[list[StructureEntry]] = []
    for entry in entries:
        if groups and _goes_on(groups[-1][-1], entry, whole):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    for number, group in enumerate(groups, start=1):
        last = group[-1]
        if last.name == f"{path.stem}-{sum(map(len, groups[:number]))}":
            last = replace(last, name=f"{path.stem}-{number}")
        if len(group) > 1:
            note = (
                f"the last of {len(group)} frames of a trajectory, --frames all takes "
                "each"
            )
            last = replace(last, notes=(*last.notes, note))
        yield last


def _is_of_a_run(path: Path) -> bool:
    if path.name.startswith(RUN_OUTPUT):
        return True
    if path.suffix != ".traj":
        return False
    with TrajectoryReader(path) as trajectory:
        return (trajectory.description or {}).get("type") in RUN_TYPES


def _goes_on(before: StructureEntry, after: StructureEntry, whole: bool) -> bool:
    """Return whether two frames follow each other in one trajectory."""
    first, second = before.atoms, after.atoms
    if first is None or second is None or len(first) != len(second):
        return False
    named = [frame.info.get(key) for frame in (first, second) for key in NAME_KEYS]
    if named[: len(NAME_KEYS)] != named[len(NAME_KEYS) :]:
        return False
    if (first.numbers != second.numbers).any() or (first.pbc != second.pbc).any():
        return False
    if whole:
        return True
    if not np.allclose(first.cell.array, second.cell.array, atol=1e-4):
        return False
    moved = find_mic(second.positions - first.positions, first.cell, first.pbc)[1]
    return bool(np.max(moved, initial=0.0) < MOST_MOVED_A)


def _refuse_partial_occupancy(entry: StructureEntry) -> StructureEntry:
    """Return an entry without atoms where sites hold several elements, or a vacancy.

    ASE's reader keeps the most frequent element of a site and the table of the others.
    """
    if entry.atoms is None:
        return entry
    table = entry.atoms.info.get("occupancy") or {}
    for site in table.values():
        shares = [share for share in site.values() if isinstance(share, int | float)]
        # of a damaged file, ASE hands on text in the place of a number
        if len(site) > 1 or sum(shares) < 1 - 1e-3:
            shown = ", ".join(f"{symbol} {share}" for symbol, share in site.items())
            error = (
                f"a site is occupied in part ({shown}); expected one element on every "
                "site: crack-md surfaces draws atoms for such sites and cuts slabs"
            )
            return replace(
                entry,
                atoms=None,
                error=error,
                status="partial_occupancy",
                average=entry.atoms,
            )
    return entry


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot read '{path}': {_short(error)}; expected slabs in {EXPECTED}"
    )


def _short(error: Exception) -> str:
    """Return an error as one line, with its type where it has no words."""
    text = " ".join(str(error).split())
    return text[:300] if text else type(error).__name__


def with_unique_names(entries: Sequence[StructureEntry]) -> tuple[StructureEntry, ...]:
    """Return entries under names that a table, a terminal and a spreadsheet can take.

    Blanks are folded, letters that are not printed become ``?``, an empty name becomes
    ``unnamed``; names that are equal after that get a number. What changed is a note.
    """
    folded = [_printable(entry.name) for entry in entries]
    counts, taken = Counter(folded), set(folded)
    seen: Counter[str] = Counter()
    unique = []
    for entry, name in zip(entries, folded, strict=True):
        notes = list(entry.notes)
        if name != entry.name:
            notes.append(f"named {entry.name[:60]!a} in the input")
        base = name
        while counts[base] > 1 and (name == base or name in taken):
            seen[base] += 1
            name = f"{base} #{seen[base]}"
        taken.add(name)
        if executes_in_spreadsheets(name):
            said = "an apostrophe stands before the name in CSV files"
            notes += [said] if said not in notes else []
        unique.append(replace(entry, name=name, notes=tuple(notes)))
    return tuple(unique)


def _printable(name: str) -> str:
    shown = "".join(c if c.isprintable() or c.isspace() else "?" for c in name)
    return " ".join(shown.split()) or "unnamed"
