"""Folders of packed parts: written part by part, read part by part, checked by hash."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from crack_md.data.dataset import (
    LabelledStructure,
    fingerprint,
    labelled_structure,
    read_metadata,
)
from crack_md.data.packed import MANIFEST
from crack_md.data.packed.columns import (
    FORCE_STEP,
    POSITION_STEP_A,
    Arrays,
    left_out,
    pack,
    unpack,
)
from crack_md.data.readers import read_structures
from crack_md.errors import DataError

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
    told = read_metadata(source)
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
        "metadata": told
        | {"fingerprint": digest, "n_features": 0, "jacobian_rows": 0}
        | {"fingerprint_before_rounding": told.get("fingerprint", "")},
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


def _read_part(path: Path, told: Mapping[str, Any]) -> list[Atoms]:
    try:
        if path.stat().st_size > LARGEST_PART_BYTES:
            raise DataError(f"{path} is larger than any part we write; get it again")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}; get it again") from error
    if hashlib.sha256(content).hexdigest() != told["sha256"]:
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
    if len(structures) != told["structures"]:
        raise DataError(f"{path} holds {len(structures)}, not {told['structures']}")
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
