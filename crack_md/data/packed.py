"""Labelled sets small enough to be committed: labels without features, compressed.

    FOLDER/packed.json       what the set is, its rounding, its parts and their hashes
    FOLDER/part-000.npz …    some thousand structures each, as laid out below

Positions are rounded to 1e-5 Å and forces to 1e-4 eV/Å; energies and cells stay as they
are. Any part opens with `numpy.load(allow_pickle=False)`. Commands that take a dataset
take the folder; `crack-md label FOLDER --only-features --teacher …` adds a teacher's
features again and leaves the energies and forces alone.

The arrays of one part:

    n_atoms            (structure,) atoms of each structure; atoms lie end to end
    numbers            (atom,) atomic numbers
    positions, forces  integers: multiples of `POSITION_STEP_A`, `FORCE_STEP`
    cell, energy       float64
    pbc, held          one bit for each direction, and for each atom that is held
    by_teacher         (structure,) 1 where the teacher said what the labels are
    text_K, code_K     JSON of the different texts of key K, and which one; -1: none
    number_K           (structure,) float64 of key K; NaN: none
    atomic_K, has_K    multiples of `FORCE_STEP` of key K, for the atoms of structures
                       with as many columns as has_K says

Integers and floats lie in planes: all first bytes, then all second ones. High bytes of
alike numbers are alike, which halves what deflate leaves of them.
"""

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from numpy.typing import DTypeLike, NDArray

from crack_md.data.dataset import (
    LabelledStructure,
    fingerprint,
    free_atoms,
    labelled_structure,
    read_metadata,
)
from crack_md.data.readers import MANIFEST, read_structures
from crack_md.errors import DataError

POSITION_STEP_A = 1e-5
FORCE_STEP = 1e-4
"""eV/Å."""
LARGEST = 2**31 - 1
SPREAD_WORDS = ("std", "spread")
"""Per-atom arrays with one of these in their name are kept: how far teachers differ."""
LABELS = ("teacher_energy", "teacher_forces")

Arrays = dict[str, NDArray[Any]]


def pack(structures: Sequence[Atoms]) -> Arrays:
    """Return the arrays of labelled structures, as the readers return them.

    Raises:
        DataError: A number cannot be stored with its rounding.
    """
    positions = np.concatenate([atoms.positions for atoms in structures])
    forces = np.concatenate([_forces(atoms) for atoms in structures])
    held = np.concatenate([~free_atoms(atoms) for atoms in structures])
    arrays: Arrays = {
        "n_atoms": np.array([len(atoms) for atoms in structures], dtype=np.int32),
        "numbers": np.concatenate([a.numbers for a in structures]).astype(np.uint8),
        "positions": planes(steps(positions, POSITION_STEP_A, "position")),
        "forces": planes(steps(forces, FORCE_STEP, "force")),
        "energy": planes(np.array([a.get_potential_energy() for a in structures])),
        "cell": planes(np.concatenate([a.cell.array for a in structures])),
        "pbc": np.packbits([atoms.pbc for atoms in structures], axis=1)[:, 0],
        "held": np.packbits(held),
        "by_teacher": np.array([_said_by_teacher(a) for a in structures], np.uint8),
    }
    for key in sorted({key for atoms in structures for key in atoms.info}):
        arrays |= _column(key, structures)
    return arrays


def unpack(arrays: Arrays) -> list[Atoms]:
    """Return the structures, labels in a calculator and all else in `info`.

    Raises:
        KeyError, ValueError: The arrays do not fit together.
    """
    sizes = arrays["n_atoms"]
    n, n_atoms = len(sizes), int(sizes.sum())
    ends = np.cumsum(sizes)
    positions = _rows(arrays["positions"], "<i4", n_atoms) * POSITION_STEP_A
    forces = _rows(arrays["forces"], "<i4", n_atoms) * FORCE_STEP
    energies = from_planes(arrays["energy"], "<f8").reshape(n)
    cells = from_planes(arrays["cell"], "<f8").reshape(n, 3, 3)
    pbc = np.unpackbits(arrays["pbc"].reshape(n, 1), axis=1)[:, :3].astype(bool)
    held = np.unpackbits(arrays["held"], count=n_atoms).astype(bool)
    numbers = arrays["numbers"].astype(int)
    infos = _infos(arrays, sizes)
    found = []
    for place, end in enumerate(ends.tolist()):
        rows = slice(end - int(sizes[place]), end)
        atoms = Atoms(numbers[rows], positions[rows], cell=cells[place], pbc=pbc[place])
        atoms.info = infos[place]
        if held[rows].any():
            atoms.set_constraint(FixAtoms(mask=held[rows]))
        energy = float(energies[place])
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces[rows])
        if arrays["by_teacher"][place]:
            atoms.info |= dict(zip(LABELS, (energy, forces[rows]), strict=True))
        found.append(atoms)
    return found


def left_out(atoms: Atoms) -> set[str]:
    """Return which entries of a structure a part does not hold."""
    entries = atoms.info.items()
    lost = {key for key, value in entries if not _kind(key, value, atoms)}
    if LABELS[0] in atoms.info and not _said_by_teacher(atoms):
        lost |= set(LABELS)
    return lost


def steps(values: NDArray[np.float64], step: float, what: str) -> NDArray[np.int32]:
    """Return values as integer multiples of a step.

    Raises:
        DataError: A value is not finite, or beyond 2³¹ steps.
    """
    scaled = np.rint(values / step)
    if not (np.abs(scaled) <= LARGEST).all():  # also where it is NaN
        worst = values[~(np.abs(scaled) <= LARGEST)].flat[0]
        raise DataError(
            f"a {what} is {worst:g}; expected a number within ±{LARGEST * step:.0f}, "
            "which is what can be stored; remove the structure"
        )
    return scaled.astype(np.int32)


def planes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return (byte, value): all first bytes, all second bytes, … (little-endian)."""
    flat = np.ascontiguousarray(values).reshape(-1)
    flat = flat.astype(flat.dtype.newbyteorder("<"))
    return flat.view(np.uint8).reshape(-1, flat.itemsize).T.copy()


def from_planes(bytes_: NDArray[np.uint8], dtype: DTypeLike) -> NDArray[Any]:
    """Return the values, flat, that `planes` took apart."""
    return np.ascontiguousarray(bytes_.T).view(dtype).reshape(-1)


def _forces(atoms: Atoms) -> NDArray[np.float64]:
    return np.asarray(atoms.get_forces(apply_constraint=False), dtype=np.float64)


def _said_by_teacher(atoms: Atoms) -> bool:
    energy, forces = (atoms.info.get(name) for name in LABELS)
    return (
        energy == atoms.get_potential_energy()
        and forces is not None
        and np.array_equal(forces, _forces(atoms))
    )


def _kind(key: str, value: Any, atoms: Atoms) -> str:
    """Return how an entry of `info` is stored; empty where it is not."""
    if key in LABELS:
        return "label"
    if key == "teacher_coefficients":  # of features, which stay behind
        return ""
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool | int | float | np.number):
        return "number"
    is_spread = any(word in key for word in SPREAD_WORDS)
    shape = np.shape(value)
    fits = shape[:1] == (len(atoms),) and len(shape) <= 2
    return "atomic" if is_spread and fits else ""


def _column(key: str, structures: Sequence[Atoms]) -> Arrays:
    """Return the arrays of one entry of `info`; none where it is not stored."""
    entries = [
        (atoms.info[key], _kind(key, atoms.info[key], atoms), place)
        for place, atoms in enumerate(structures)
        if key in atoms.info
    ]
    kinds = {kind for _, kind, _ in entries} - {"", "label"}
    if len(kinds) > 1:
        raise DataError(
            f"the entry '{key}' is a {' here and a '.join(sorted(kinds))} there; give "
            "all structures the same, or remove it"
        )
    kept = [(value, place) for value, kind, place in entries if kind in kinds]
    if "text" in kinds:
        return _text(key, kept, len(structures))
    if "number" in kinds:
        numbers = np.full(len(structures), np.nan)
        numbers[[place for _, place in kept]] = [float(value) for value, _ in kept]
        return {f"number_{key}": planes(numbers)}
    if "atomic" not in kinds:
        return {}
    values = [
        np.asarray(value, dtype=float).reshape(len(value), -1) for value, _ in kept
    ]
    has = np.zeros(len(structures), dtype=np.uint8)
    has[[place for _, place in kept]] = values[0].shape[1]
    return {
        f"atomic_{key}": planes(steps(np.concatenate(values), FORCE_STEP, key)),
        f"has_{key}": has,
    }


def _text(key: str, kept: Sequence[tuple[Any, int]], n: int) -> Arrays:
    texts = sorted({value for value, _ in kept})
    place_of = {text: number for number, text in enumerate(texts)}
    codes = np.full(n, -1, dtype=np.int32)
    for value, place in kept:
        codes[place] = place_of[value]
    table = np.frombuffer(json.dumps(texts, ensure_ascii=False).encode(), np.uint8)
    return {f"text_{key}": table, f"code_{key}": planes(codes)}


def _rows(packed: NDArray[np.uint8], dtype: str, n_rows: int) -> NDArray[np.float64]:
    return from_planes(packed, dtype).reshape(n_rows, -1).astype(np.float64)


def _infos(arrays: Arrays, sizes: NDArray[np.int32]) -> list[dict[str, Any]]:
    infos: list[dict[str, Any]] = [{} for _ in sizes]
    for name, column in arrays.items():
        kind, _, key = name.partition("_")
        if kind == "text":
            texts = json.loads(column.tobytes())
            codes = from_planes(arrays[f"code_{key}"], "<i4")
            values = [None if code < 0 else texts[code] for code in codes]
        elif kind == "number":
            numbers = from_planes(column, "<f8").tolist()
            values = [None if math.isnan(number) else number for number in numbers]
        elif kind == "atomic":
            values = _atomic(column, arrays[f"has_{key}"], sizes)
        else:
            continue
        for info, value in zip(infos, values, strict=True):
            if value is not None:
                info[key] = value
    return infos


def _atomic(
    column: NDArray[np.uint8], widths: NDArray[np.uint8], sizes: NDArray[np.int32]
) -> list[NDArray[np.float64] | None]:
    """Return (atom, column) of every structure, (atom,) for one column, or None."""
    flat = from_planes(column, "<i4") * FORCE_STEP
    ends = np.cumsum(widths * sizes)
    return [
        None
        if not width
        else flat[end - width * size : end].reshape(
            (size, width) if width > 1 else size
        )
        for width, size, end in zip(
            widths.tolist(), sizes.tolist(), ends.tolist(), strict=True
        )
    ]


FORMAT_VERSION = 1
STRUCTURES_PER_PART = 10_000
ATOMS_PER_PART = 120_000
"""A part of so many takes 1 to 2 MB, and some 50 MB of memory while it is read."""
LARGEST_PART_BYTES = 10_000_000
LARGEST_UNPACKED_BYTES = 200_000_000
"""A part that says it holds more is refused before it is unpacked."""


@dataclass(frozen=True)
class PackCounts:
    """What was written."""

    structures: int
    n_bytes: int
    """Of all files."""
    left_out: tuple[str, ...]
    """Entries of the structures that the format does not hold."""


def pack_dataset(source: Path, folder: Path, *, overwrite: bool = False) -> PackCounts:
    """Write a labelled set as a packed one; return what it came to.

    The manifest is written last: a folder without it is no dataset. A part is in memory
    at a time. The fingerprint is that of the rounded structures.

    Args:
        source: A labelled set of any format.
        folder: Made if it is missing; may hold other files, such as a card.
        overwrite: Replace the set in the folder.

    Raises:
        DataError: A set is there, a structure has no labels, or a number cannot be
            stored.
    """
    record = read_metadata(source)
    if (folder / MANIFEST).exists() and not overwrite:
        raise DataError(
            f"{folder} holds a packed set; choose another name or pass --overwrite"
        )
    _clear(folder)
    parts: list[dict[str, Any]] = []
    lost: set[str] = set()
    digest = fingerprint(_write_parts(source, folder, parts, lost))
    manifest = {
        "format_version": FORMAT_VERSION,
        "rounding": {"positions_A": POSITION_STEP_A, "forces_eV_per_A": FORCE_STEP},
        "left_out": sorted(lost),
        "parts": parts,
        "metadata": record
        | {"fingerprint": digest, "n_features": 0, "jacobian_rows": 0}
        | {"fingerprint_before_rounding": record.get("fingerprint", "")},
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    _write(folder / MANIFEST, text.encode())
    n_bytes = len(text.encode()) + sum(part["bytes"] for part in parts)
    count = sum(part["structures"] for part in parts)
    return PackCounts(count, n_bytes, tuple(sorted(lost)))


def _write_parts(
    source: Path, folder: Path, parts: list[dict[str, Any]], lost: set[str]
) -> Iterator[LabelledStructure]:
    """Write the parts, note them, and yield the structures as they will be read."""
    for number, chunk in enumerate(_chunks(_labelled(source))):
        for atoms in chunk:
            lost |= left_out(atoms)
        arrays = pack(chunk)
        parts.append(_write_part(folder / f"part-{number:03d}.npz", arrays))
        for atoms in unpack(arrays):
            yield labelled_structure(atoms, str(folder))


def _labelled(source: Path) -> Iterator[Atoms]:
    for number, atoms in enumerate(read_structures(source), start=1):
        labelled_structure(atoms, f"{source}, structure {number}")  # refuses
        yield atoms


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a packed set.

    Raises:
        DataError: It is damaged, or of another version.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format_version"]
        complete = isinstance(manifest["metadata"], dict) and all(
            {"file", "sha256", "structures"} <= part.keys()
            for part in manifest["parts"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"cannot read {path}: {error!r}; get it again") from error
    if version != FORMAT_VERSION or not complete:
        raise DataError(
            f"{path} is no packed set of version {FORMAT_VERSION}; get it again, or "
            "update crack-md"
        )
    return dict(manifest)


def read_packed(path: Path) -> Iterator[Atoms]:
    """Yield the structures of a packed set, given its manifest; a part in memory.

    Raises:
        DataError: A part is missing, altered or damaged.
    """
    for part in read_manifest(path)["parts"]:
        yield from _read_part(path.with_name(Path(part["file"]).name), part)


def _read_part(path: Path, record: Mapping[str, Any]) -> list[Atoms]:
    try:
        if path.stat().st_size > LARGEST_PART_BYTES:
            raise DataError(f"{path} is larger than any part we write; get it again")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}; get it again") from error
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise DataError(
            f"{path} is not what {MANIFEST} says (its SHA-256 differs); get it again"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST_UNPACKED_BYTES:
            raise ValueError(f"{size} bytes unpacked")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            structures = unpack({name: file[name] for name in file.files})
    except (ValueError, KeyError, IndexError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}); get it again") from error
    if len(structures) != record["structures"]:
        raise DataError(f"{path} holds {len(structures)}, not {record['structures']}")
    return structures


def _write_part(path: Path, arrays: Arrays) -> dict[str, Any]:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    if len(content) > LARGEST_PART_BYTES:
        raise DataError(
            f"a part of {len(content)} bytes; its structures carry more than labels: "
            "remove long texts from them"
        )
    _write(path, content)
    return {
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "structures": len(arrays["n_atoms"]),
        "atoms": int(arrays["n_atoms"].sum()),
    }


def _chunks(structures: Iterable[Atoms]) -> Iterator[list[Atoms]]:
    """Yield structures in lists of at most so many structures, and about atoms."""
    remaining = iter(structures)
    while chunk := list(islice(remaining, 1)):
        n_atoms = len(chunk[0])
        while n_atoms < ATOMS_PER_PART and len(chunk) < STRUCTURES_PER_PART:
            more = next(remaining, None)
            if more is None:
                break
            chunk.append(more)
            n_atoms += len(more)
        yield chunk


def _clear(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in [folder / MANIFEST, *sorted(folder.glob("part-*.npz"))]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error}") from error


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write {path}: {error}") from error
