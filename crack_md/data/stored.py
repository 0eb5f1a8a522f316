"""Labelled sets that are larger than memory: columns in files, structures on demand.

A set is read once and written as flat columns (`crack_md.data.columns`), which hold
what training reads of it, in the precision of the source. From then on a structure is
made when it is asked for, and all processes of a machine share the same pages.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from ase import Atoms
from jaxtyping import Int

from crack_md.data.columns import Columns, ColumnWriter, open_columns
from crack_md.data.dataset import (
    SPLITS,
    LabelledDataset,
    LabelledStructure,
    labelled_structure,
    metadata_of,
)
from crack_md.data.parallel import first_rank_first
from crack_md.data.readers import read_structures, source_files
from crack_md.files import claim_folder
from crack_md.models.teachers.base import JacobianRows, TeacherLabels

CHUNK = 512
"""Structures that are in memory while a set is written."""
FORMAT_VERSION = 1


def columns_of(
    structures: Sequence[LabelledStructure], *, whole: bool = True
) -> Columns:
    """Return structures and labels as columns: a row per structure or per atom.

    Args:
        structures: All of them with labels of a teacher, or these are left out.
        whole: With what is large or not for batches: features, rows of the Jacobian,
            names.
    """
    sizes = [len(one.atoms) for one in structures]
    columns: Columns = {
        "n_atoms": np.array(sizes, np.int32),
        "energy": np.array([one.energy for one in structures], np.float64),
        "cell": np.stack([one.atoms.cell.array for one in structures]),
        "pbc": np.stack([one.atoms.pbc for one in structures]),
        "numbers": np.concatenate([one.atoms.numbers for one in structures]),
        "positions": np.concatenate([one.atoms.positions for one in structures]),
        "forces": np.concatenate([one.forces for one in structures]),
        "free": np.concatenate([one.free for one in structures]),
    }
    columns["numbers"] = columns["numbers"].astype(np.int16)
    teachers = [one.teacher for one in structures if one.teacher is not None]
    if len(teachers) == len(structures):
        columns |= _teacher_columns(teachers, whole=whole)
    if whole:
        splits = [-1 if s.split is None else SPLITS.index(s.split) for s in structures]
        names = [json.dumps([one.group, one.kind]).encode() for one in structures]
        columns["split"] = np.array(splits, np.int8)
        columns["name_bytes"] = np.array([len(name) for name in names], np.int32)
        columns["name"] = np.frombuffer(b"".join(names), np.uint8)
    return columns


def _teacher_columns(teachers: Sequence[TeacherLabels], *, whole: bool) -> Columns:
    columns: Columns = {
        "teacher_energy": np.array([one.energy for one in teachers], np.float64),
        "teacher_forces": np.concatenate([one.forces for one in teachers]),
    }
    atomic = [one.node_energy for one in teachers if one.node_energy is not None]
    if len(atomic) == len(teachers):
        columns["teacher_node_energy"] = np.concatenate(atomic)
    if not whole:
        return columns
    features = [t.node_features for t in teachers if t.node_features is not None]
    if len(features) == len(teachers):
        columns["teacher_node_features"] = np.concatenate(features)
    jacobians = [one.jacobian for one in teachers if one.jacobian is not None]
    if len(jacobians) == len(teachers):
        columns |= {
            "teacher_moves": np.array([len(one.atom) for one in jacobians], np.int32),
            "teacher_moved_atom": np.concatenate([one.atom for one in jacobians]),
            "teacher_moved_axis": np.concatenate([one.axis for one in jacobians]),
            "teacher_jacobian": np.concatenate(
                [one.values.reshape(-1, 3) for one in jacobians]
            ),
        }
    return columns


def starts(counts: np.ndarray) -> Int[np.ndarray, " structure_and_end"]:
    """Return where each of consecutive spans begins, and where the last ends."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


@dataclass(frozen=True)
class Store:
    """Columns of structures, as `columns_of` lays them out, and where they are."""

    folder: Path
    job: Mapping[str, Any]
    """What the columns were made of; what is derived from them may depend on it."""
    columns: Columns

    @cached_property
    def first_atom(self) -> Int[np.ndarray, " structure_and_end"]:
        """Return where the atoms of each structure begin."""
        return starts(self.columns["n_atoms"])

    @cached_property
    def first_letter(self) -> Int[np.ndarray, " structure_and_end"]:
        """Return where the name of each structure begins."""
        return starts(self.columns["name_bytes"])

    @cached_property
    def first_move(self) -> Int[np.ndarray, " structure_and_end"]:
        """Return where the rows of the Jacobian of each structure begin."""
        return starts(self.columns["teacher_moves"])

    @cached_property
    def first_slope(self) -> Int[np.ndarray, " structure_and_end"]:
        """Return where the values of these rows begin."""
        moves = self.columns["teacher_moves"].astype(np.int64)
        return starts(moves * self.columns["n_atoms"])


class StoredStructures(Sequence[LabelledStructure]):
    """Some structures of a store, in any order and repeated; each made when asked for.

    Args:
        store: Where they are.
        rows: Which structures; all of them by default.
        with_teacher: Whether structures carry the teacher's labels.
    """

    def __init__(
        self,
        store: Store,
        rows: Int[np.ndarray, " structure"] | None = None,
        *,
        with_teacher: bool = True,
    ) -> None:
        self.store = store
        everything = np.arange(len(store.columns["n_atoms"]))
        self.rows = everything if rows is None else rows
        self.with_teacher = with_teacher and "teacher_energy" in store.columns

    def __len__(self) -> int:
        """Return the number of structures."""
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> LabelledStructure: ...

    @overload
    def __getitem__(self, place: slice) -> "StoredStructures": ...

    def __getitem__(self, place: int | slice) -> "LabelledStructure | StoredStructures":
        """Return one structure, or some of them as a sequence of the same kind."""
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        row, store = int(self.rows[place]), self.store
        columns = store.columns
        first, end = store.first_atom[row : row + 2]
        name = columns["name"][slice(*store.first_letter[row : row + 2])]
        group, kind = json.loads(name.tobytes())
        split = int(columns["split"][row])
        return LabelledStructure(
            atoms=Atoms(
                columns["numbers"][first:end].astype(int),
                np.array(columns["positions"][first:end]),
                cell=np.array(columns["cell"][row]),
                pbc=np.array(columns["pbc"][row]),
            ),
            energy=float(columns["energy"][row]),
            forces=np.array(columns["forces"][first:end]),
            teacher=self._teacher(row) if self.with_teacher else None,
            group=group,
            kind=kind,
            free=np.array(columns["free"][first:end]),
            split=None if split < 0 else SPLITS[split],
        )

    def take(self, places: Int[np.ndarray, " chosen"]) -> "StoredStructures":
        """Return the structures at these places."""
        return StoredStructures(
            self.store, self.rows[places], with_teacher=self.with_teacher
        )

    def without_teacher(self) -> "StoredStructures":
        """Return the same structures, without what a teacher said of them."""
        return StoredStructures(self.store, self.rows, with_teacher=False)

    @property
    def first_atom(self) -> Int[np.ndarray, " structure"]:
        """Return where the atoms of each structure begin in the columns."""
        return self.store.first_atom[:-1][self.rows]

    def _teacher(self, row: int) -> TeacherLabels:
        columns = self.store.columns
        atoms = slice(*self.store.first_atom[row : row + 2])
        atomic = columns.get("teacher_node_energy")
        features = columns.get("teacher_node_features")
        return TeacherLabels(
            energy=float(columns["teacher_energy"][row]),
            forces=np.array(columns["teacher_forces"][atoms]),
            node_features=None if features is None else np.array(features[atoms]),
            node_energy=None if atomic is None else np.array(atomic[atoms]),
            jacobian=self._jacobian(row),
        )

    def _jacobian(self, row: int) -> JacobianRows | None:
        columns, store = self.store.columns, self.store
        if "teacher_moves" not in columns:
            return None
        moves = slice(*store.first_move[row : row + 2])
        slopes = slice(*store.first_slope[row : row + 2])
        n_atoms = int(columns["n_atoms"][row])
        return JacobianRows(
            np.array(columns["teacher_moved_atom"][moves]),
            np.array(columns["teacher_moved_axis"][moves]),
            np.array(columns["teacher_jacobian"][slopes]).reshape(-1, n_atoms, 3),
        )


def take(
    structures: Sequence[LabelledStructure],
    places: Sequence[int] | Int[np.ndarray, " chosen"],
) -> Sequence[LabelledStructure]:
    """Return the structures at some places; of a store, without making them."""
    if isinstance(structures, StoredStructures):
        return structures.take(np.array(places, dtype=np.int64))
    return tuple(structures[place] for place in places)


def without_teacher(
    structures: Sequence[LabelledStructure],
) -> Sequence[LabelledStructure]:
    """Return the structures with their own labels alone."""
    if isinstance(structures, StoredStructures):
        return structures.without_teacher()
    return tuple(replace(one, teacher=None) for one in structures)


def join(
    parts: Sequence[Sequence[LabelledStructure]],
) -> Sequence[LabelledStructure]:
    """Return the structures of all parts, one part behind the other."""
    stored = [one for one in parts if isinstance(one, StoredStructures)]
    if len(stored) < len(parts):
        return tuple(one for part in parts for one in part)
    store = stored[0].store
    assert all(one.store is store for one in stored), "a run has one store"
    return StoredStructures(
        store,
        np.concatenate([one.rows for one in stored]),
        with_teacher=all(one.with_teacher for one in stored),
    )


@dataclass(frozen=True)
class StoredDataset(LabelledDataset):
    """A set, or one of several in the same columns."""

    structures: StoredStructures

    @property
    def has_features(self) -> bool:
        """Return whether every structure has the teacher's node features."""
        return "teacher_node_features" in self.structures.store.columns

    @property
    def elements(self) -> tuple[int, ...]:
        """Return the atomic numbers that occur, ascending; in any set of the store."""
        numbers = self.structures.store.columns["numbers"]
        return tuple(np.unique(numbers).tolist())

    @property
    def n_unsplit(self) -> int:
        """Return how many structures belong to no split."""
        return int((self._splits < 0).sum())

    def select(self, split: str) -> StoredStructures:
        """Return the structures of one split, in their order in the file."""
        return self.structures.take(np.flatnonzero(self._splits == SPLITS.index(split)))

    @property
    def _splits(self) -> Int[np.ndarray, " structure"]:
        return self.structures.store.columns["split"][self.structures.rows]


def store_datasets(
    paths: Sequence[Path],
    folder: Path,
    *,
    report: Callable[[int], None] = lambda done: None,
) -> dict[Path, StoredDataset]:
    """Return labelled sets out of a folder of columns, which is written if need be.

    The first process of a run writes; a stopped run goes on where it was. Columns of
    other files, or of files that have changed since, are replaced.

    Args:
        paths: Sets of any format, each once.
        folder: For the columns; about 100 bytes per atom, and the teacher's features.
        report: Called with the number of structures done.

    Raises:
        DataError: A set cannot be read, the folder cannot be written, or its disk is
            full.
    """
    job = {"format_version": FORMAT_VERSION, "sets": [_identity(p) for p in paths]}
    with first_rank_first():
        columns = open_columns(folder, job)
        if columns is None:
            with claim_folder(folder, advice="name another with data.store"):
                columns = _write(paths, folder, job, report)
    store = Store(folder, job, columns)
    return {
        path: StoredDataset(
            StoredStructures(store, np.flatnonzero(columns["set"] == number)),
            metadata_of(path),
        )
        for number, path in enumerate(paths)
    }


def _identity(path: Path) -> list[Any]:
    """Return name, size and time of change of every file: hashing takes minutes."""
    files = [(file, file.stat()) for file in source_files(path)]
    return [[file.name, stat.st_size, stat.st_mtime_ns] for file, stat in files]


def _write(
    paths: Sequence[Path],
    folder: Path,
    job: Mapping[str, Any],
    report: Callable[[int], None],
) -> Columns:
    writer = ColumnWriter(folder, job)
    rows = islice(_rows(paths), writer.done, None)
    while chunk := list(islice(rows, CHUNK)):
        columns = columns_of([structure for structure, _ in chunk])
        columns["set"] = np.array([number for _, number in chunk], np.int16)
        writer.append(columns, n_items=len(chunk))
        report(writer.done)
    return writer.finish()


def _rows(paths: Sequence[Path]) -> Iterator[tuple[LabelledStructure, int]]:
    for number, path in enumerate(paths):
        for count, atoms in enumerate(read_structures(path), start=1):
            yield labelled_structure(atoms, f"{path}, structure {count}"), number
