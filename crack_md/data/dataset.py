"""Labelled datasets on disk and in memory.

One row is one structure. Its own calculator results are the labels that the task loss
reads; `row.data` holds what the teacher said, node features included.

    row energy, forces                        eV, eV/Å
    row.data   teacher_energy                 eV
               teacher_forces                 (atom, 3) eV/Å
               teacher_node_features          (atom, coefficient · channel)
               teacher_coefficients           SO(3) coefficients per channel; 1, the
                                              invariants, where it is missing
               teacher_node_energy            (atom,) eV
               teacher_jacobian               (atom, row · 3) eV/Å², ∂F/∂r of a few
               teacher_jacobian_atom, _axis   (row,) coordinates
    row keys   group   which system a frame belongs to; splits never divide a group
               kind    how it was made: rattled, relaxed, thermal, strained, initial
               split   train, val or test
    metadata   format_version, teacher, teacher_sha256, energy_reference,
               gas_references, n_features, jacobian_rows, jacobian_step_A,
               fingerprint

Rows are written in chunks to `NAME.partial.*` and moved into place at the end, so a
killed run continues where its last chunk ended and a finished file is always whole.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled
from numpy.typing import NDArray

from crack_md.data.readers import manifest_of, read_structures
from crack_md.errors import DataError
from crack_md.input_files import open_database
from crack_md.models.teachers.base import JacobianRows, TeacherLabels
from crack_md.structures import DATABASES

REFERENCE = "REF_"
"""Before energy and forces in files made for training, as MACE reads them."""


class OwnLabels(NamedTuple):
    """What a structure brings of an energy and forces; None for what it lacks."""

    energy: float | None
    """eV."""
    forces: NDArray[np.float64] | None
    """(atom, 3) in eV/Å; constraints not applied."""
    replaced: bool
    """Whether other values, of its calculator, gave way to those named REF_."""

    @property
    def kind(self) -> str:
        """Return in words which labels there are."""
        parts = {"energy": self.energy, "forces": self.forces}
        there = [name for name, value in parts.items() if value is not None]
        return " and ".join(there) or "no label"


def own_labels(atoms: Atoms) -> OwnLabels:
    """Return the labels that came with a structure.

    Raises:
        DataError: one is no number, not finite, or of another shape than the structure.
    """
    results = dict(getattr(atoms.calc, "results", {}))
    results.setdefault("energy", results.get("free_energy"))
    named = {**atoms.info, **atoms.arrays}
    reference = {
        name: named[f"{REFERENCE}{name}"]
        for name in ("energy", "forces")
        if f"{REFERENCE}{name}" in named
    }
    energy, forces = (_of(name, reference, results) for name in ("energy", "forces"))
    if energy is not None and energy.size != 1:
        raise DataError(f"an energy of {energy.size} numbers; expected one, in eV")
    if forces is not None and forces.shape != atoms.positions.shape:
        raise DataError(
            f"forces of shape {forces.shape}; expected {atoms.positions.shape}, in eV/Å"
        )
    return OwnLabels(
        energy=None if energy is None else float(energy.reshape(())),
        forces=forces,
        replaced=any(_differ(reference[key], results.get(key)) for key in reference),
    )


def without_reference(atoms: Atoms) -> Atoms:
    """Return a copy without what is named REF_: its labels stand elsewhere."""
    copy = atoms.copy()
    for holder in (copy.info, copy.arrays):
        for name in ("energy", "forces"):
            holder.pop(f"{REFERENCE}{name}", None)
    return copy


def _of(
    name: str, reference: Mapping[str, Any], results: Mapping[str, Any]
) -> NDArray[np.float64] | None:
    value = reference.get(name, results.get(name))
    if value is None:
        return None
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} is {str(value)[:40]!r}; expected numbers") from None
    if not np.isfinite(array).all():
        raise DataError(f"an energy or a force that is not finite ({name})")
    return array


def _differ(one: Any, other: Any) -> bool:
    return other is not None and not np.allclose(one, other, rtol=0, atol=1e-8)


PART = "teacher_energy_by_"
"""Before the name of one of several teachers: what it would say alone, eV."""


def teacher_data(labels: TeacherLabels) -> dict[str, Any]:
    """Return a teacher's labels as the entries of `row.data`.

    What belongs to atoms has one row per atom and at most two axes, which is what the
    columns of extended XYZ can hold too.
    """
    n_atoms = len(labels.forces)
    data: dict[str, Any] = {
        "teacher_energy": labels.energy,
        "teacher_forces": np.asarray(labels.forces),
    }
    features = labels.node_features
    if features is not None:
        data["teacher_node_features"] = _own(features).reshape(n_atoms, -1)
        if features.shape[1] > 1:
            data["teacher_coefficients"] = features.shape[1]
    if labels.node_energy is not None:
        data["teacher_node_energy"] = labels.node_energy
    for name, energy in (labels.parts or {}).items():
        data[f"{PART}{name}"] = energy
    if labels.spread is not None:
        data["teacher_spread"] = labels.spread
    if labels.jacobian is not None:
        rows = labels.jacobian.values.transpose(1, 0, 2).reshape(n_atoms, -1)
        data["teacher_jacobian"] = rows.astype(np.float32)
        data["teacher_jacobian_atom"] = labels.jacobian.atom
        data["teacher_jacobian_axis"] = labels.jacobian.axis
    return data


def teacher_labels(info: dict[str, Any], n_atoms: int) -> TeacherLabels | None:
    """Return the teacher's labels that `row.data` holds, if it holds any.

    Raises:
        DataError: One is missing, or of another kind or shape.
    """
    if "teacher_energy" not in info:
        return None
    try:
        return _labels(info, n_atoms)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        missing = isinstance(error, KeyError)
        reason = f"no {error}" if missing else " ".join(str(error).split())
        raise DataError(
            f"a teacher_energy but labels that are no teacher's ({reason}); rename or "
            "remove entries that begin with teacher_, or label it again"
        ) from error


def _labels(info: dict[str, Any], n_atoms: int) -> TeacherLabels:
    forces = np.asarray(info["teacher_forces"], dtype=np.float64).reshape(n_atoms, 3)
    features = info.get("teacher_node_features")
    atomic = info.get("teacher_node_energy")
    shape = (len(forces), int(info.get("teacher_coefficients", 1)), -1)
    return TeacherLabels(
        energy=float(info["teacher_energy"]),
        forces=forces,
        node_features=None if features is None else _own(features).reshape(shape),
        node_energy=None
        if atomic is None
        else np.asarray(atomic, dtype=np.float64).reshape(len(forces)),
        jacobian=_jacobian(info, len(forces)),
        parts=_parts(info),
        spread=float(info["teacher_spread"]) if "teacher_spread" in info else None,
    )


def _parts(info: dict[str, Any]) -> dict[str, float] | None:
    named = {
        key.removeprefix(PART): float(value)
        for key, value in info.items()
        if key.startswith(PART)
    }
    return named or None


def _jacobian(info: dict[str, Any], n_atoms: int) -> JacobianRows | None:
    if "teacher_jacobian" not in info:
        return None
    # extended XYZ turns arrays of one entry into numbers
    atom, axis = (
        np.atleast_1d(info[f"teacher_jacobian_{name}"]).astype(np.int64)
        for name in ("atom", "axis")
    )
    rows = _own(info["teacher_jacobian"]).reshape(n_atoms, len(atom), 3)
    return JacobianRows(atom, axis, np.ascontiguousarray(rows.transpose(1, 0, 2)))


def _own(array: Any) -> NDArray[np.floating]:
    """Return the array in memory that may be written to, as tensors want it.

    In float32, or in float16 where it was stored so. ASE's databases hand out arrays
    that lie in the text they were read from.
    """
    half = np.asarray(array).dtype == np.float16
    dtype = np.float16 if half else np.float32
    return np.require(array, dtype=dtype, requirements=["C", "W"])


FORMAT_VERSION = 1
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class LabelledStructure:
    """One structure with the labels a student learns from."""

    atoms: Atoms
    energy: float
    """eV, of the task loss."""
    forces: NDArray[np.float64]
    """(atom, 3) in eV/Å, of the task loss."""
    teacher: TeacherLabels | None
    """What the teacher says; None in a set without teacher."""
    group: str
    kind: str
    free: NDArray[np.bool_]
    """(atom,) True for atoms that move; force errors count these."""
    split: str | None = None


@dataclass(frozen=True)
class LabelledDataset:
    """All structures of a labelled set, with what the file says about them."""

    structures: Sequence[LabelledStructure]
    metadata: dict[str, Any]

    def __len__(self) -> int:
        """Return the number of structures."""
        return len(self.structures)

    @property
    def has_features(self) -> bool:
        """Return whether every structure has the teacher's node features."""
        return all(
            one.teacher is not None and one.teacher.node_features is not None
            for one in self.structures
        )

    @property
    def elements(self) -> tuple[int, ...]:
        """Return the atomic numbers that occur, ascending."""
        numbers = [one.atoms.numbers for one in self.structures]
        return tuple(int(z) for z in np.unique(np.concatenate(numbers)))

    @property
    def n_unsplit(self) -> int:
        """Return how many structures belong to no split."""
        return sum(one.split is None for one in self.structures)

    def select(self, split: str) -> Sequence[LabelledStructure]:
        """Return the structures of one split, in their order in the file."""
        return tuple(one for one in self.structures if one.split == split)


def read_dataset(path: Path | str) -> LabelledDataset:
    """Return a labelled set; energies and forces are required in every row.

    Raises:
        DataError: The file is missing, empty or broken, or a row has no labels.
    """
    path = Path(path)
    structures = tuple(
        labelled_structure(atoms, f"{path}, structure {count}")
        for count, atoms in enumerate(read_structures(path), start=1)
    )
    return LabelledDataset(structures, metadata_of(path))


def metadata_of(path: Path) -> dict[str, Any]:
    """Return what a labelled set says about itself.

    Raises:
        DataError: It is of another version.
    """
    metadata = read_metadata(path)
    version = metadata.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has dataset format {version}; this version reads "
            f"{FORMAT_VERSION}; label it again or update crack-md"
        )
    return metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a dataset says about itself; empty for plain structure files."""
    if (manifest := manifest_of(path)) is not None:
        from crack_md.data.packed import read_manifest  # which reads with this

        return dict(read_manifest(manifest)["metadata"])
    if path.suffix in DATABASES:
        metadata = dict(open_database(path).metadata)
        # a file that is still being written says so under the job it belongs to
        return dict(metadata.get("job", metadata))
    if path.suffix in (".xyz", ".extxyz"):
        return _as_dict(next(read_structures(path)).info.get("metadata"), path)
    return {}


def to_row(structure: LabelledStructure) -> Atoms:
    """Return the structure as ASE atoms whose `info` carries group, kind and labels."""
    atoms = structure.atoms.copy()
    atoms.info = {"group": structure.group, "kind": structure.kind}
    if structure.split is not None:
        atoms.info["split"] = structure.split
    atoms.set_constraint(
        FixAtoms(mask=~structure.free) if not all(structure.free) else None
    )
    atoms.calc = SinglePointCalculator(
        atoms, energy=structure.energy, forces=structure.forces
    )
    if structure.teacher is not None:
        atoms.info |= teacher_data(structure.teacher)
    return atoms


def group_of(atoms: Atoms, number: int) -> str:
    """Return the group a structure belongs to; one of its own where it names none."""
    group = atoms.info.get(
        "group", f"{atoms.get_chemical_formula('hill')}-{number:05d}"
    )
    # ASE refuses keys whose text reads as a number
    return str(group) if str(group)[:1].isalpha() else f"group-{group}"


def fingerprint(structures: Iterable[LabelledStructure]) -> str:
    """Return a SHA-256 of structures and labels; row order counts, storage does not."""
    digest = hashlib.sha256()
    for one in structures:
        digest.update(one.atoms.numbers.astype("<i8").tobytes())
        digest.update(one.atoms.positions.astype("<f8").tobytes())
        digest.update(one.atoms.cell.array.astype("<f8").tobytes())
        digest.update(np.float64(one.energy).tobytes())
        digest.update(one.forces.astype("<f8").tobytes())
    return digest.hexdigest()


def labelled_structure(atoms: Atoms, where: str) -> LabelledStructure:
    """Return a structure as read from a file with its labels; `where` names it."""
    try:
        teacher = teacher_labels(_with_arrays(atoms), len(atoms))
        own = own_labels(atoms)
    except DataError as error:
        raise DataError(f"{where} has {error}") from error
    if own.energy is None or own.forces is None:
        lacks = "no energy and forces" if own.kind == "no label" else f"only {own.kind}"
        raise DataError(f"{where} has {lacks}; label it first with: crack-md label")
    energy, forces = own.energy, own.forces
    split = check_split(atoms, where)
    free = free_atoms(atoms)
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    group = str(atoms.info.get("group", atoms.get_chemical_formula(empirical=True)))
    kind = str(atoms.info.get("kind", "unknown"))
    return LabelledStructure(plain, energy, forces, teacher, group, kind, free, split)


def check_split(atoms: Atoms, where: str) -> str | None:
    """Return the split that a structure says it belongs to, if it says so.

    Raises:
        DataError: it is none of train, val and test.
    """
    split = atoms.info.get("split")
    if split is not None and str(split) not in SPLITS:
        raise DataError(f"{where}: split is '{split}'; expected one of {SPLITS}")
    return None if split is None else str(split)


HOLDING = (FixAtoms, FixCartesian, FixScaled, FixedPlane, FixedLine)
"""Constraints on single atoms; an atom that none of them lets move is held."""


def free_atoms(atoms: Atoms) -> NDArray[np.bool_]:
    """Return (atom,) True for atoms that their constraints leave any direction."""
    free = np.zeros(len(atoms), dtype=bool)
    holding = [one for one in atoms.constraints if isinstance(one, HOLDING)]
    for axis in np.eye(3):
        moved = atoms.positions + axis
        for constraint in holding:
            constraint.adjust_positions(atoms, moved)
        free |= np.abs(moved - atoms.positions).max(axis=1) > 1e-6
    return free


def _with_arrays(atoms: Atoms) -> dict[str, Any]:
    """Return info plus the per-atom arrays, where extended XYZ keeps its columns."""
    teacher = {
        name: array
        for name, array in atoms.arrays.items()
        if name.startswith("teacher_")
    }
    return {**atoms.info, **teacher}


def _as_dict(value: Any, path: Path) -> dict[str, Any]:
    """Return the metadata of extended XYZ; what others call by that name is none."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(
                f"{path}: the metadata of its first frame are damaged ({error}); "
                "remove them, or label the structures again"
            ) from error
    return dict(value) if isinstance(value, dict) else {}
