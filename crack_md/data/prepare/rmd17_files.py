"""The files of rMD17: frames of a molecule, and the lists of the published splits."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crack_md.data.prepare.sources import (
    FolderSource,
    Source,
    open_source,
    plain_name,
    read_lines,
    reading,
)
from crack_md.errors import DataError

LabelSet = Literal["old", "recomputed"]
_FILE = re.compile(
    r"(?:rmd17_)?(?P<molecule>.+?)(?:_(?P<split>train|test)(?:_(?P<number>\d+))?)?\.npz"
)


@dataclass(frozen=True)
class Molecule:
    """The frames of one file, in kcal/mol and Å."""

    where: str
    numbers: NDArray[Any]
    """(atom,) atomic numbers."""
    positions: NDArray[Any]
    """(frame, atom, 3)."""
    energies: NDArray[Any]
    forces: NDArray[Any]
    indices: NDArray[Any]
    """(frame,) places in MD17's own trajectory, 0.5 fs apart."""
    splits: tuple[str | None, ...]
    """(frame,) what the name of the file or a list says."""


@dataclass(frozen=True)
class MoleculeFile:
    """A file of a source, not yet read."""

    source: Source
    name: str
    molecule: str
    split: str | None
    number: int | None
    """Of the published split that the file is part of."""


def find_molecules(
    sources: Sequence[Path],
    labels: LabelSet,
    *,
    name: str | None,
    index_folder: Path | None,
    number: int,
) -> list[Molecule]:
    """Return the frames of one molecule with their splits, file by file.

    Args:
        sources: Files, folders and archives.
        labels: Which labels are read.
        name: Of the molecule; not needed where there is one only.
        index_folder: Where the lists of the splits are.
        number: Which of the published splits.

    Raises:
        DataError: Nothing fits, a file is damaged, or it lacks the labels.
    """
    opened = [open_source(path, endings=(".npz",)) for path in sources]
    files = [file for source in opened for file in _files(source)]
    # several splits lie in one folder; a file that was named is meant
    chosen = [
        file
        for file in files
        if file.number in (None, number) or len(file.source.names) == 1
    ]
    known = sorted({file.molecule for file in chosen})
    if name is not None:
        chosen = [file for file in chosen if file.molecule == name]
    elif len(known) > 1:
        raise DataError(
            f"there are the molecules {', '.join(known)}; choose one with --molecule"
        )
    if not chosen:
        wanted = f"no frames of {name or 'a molecule'}, split {number:02d}"
        raise DataError(
            f"{', '.join(map(str, sources))}: {wanted}; found "
            f"{', '.join(known) or 'no rMD17 files (rmd17_MOLECULE.npz)'}"
        )
    return [_read(file, labels, index_folder, number) for file in chosen]


def _files(source: Source) -> list[MoleculeFile]:
    found = []
    for name in source.names:
        match = _FILE.fullmatch(plain_name(name))
        if match:
            number = None if match["number"] is None else int(match["number"])
            found.append(
                MoleculeFile(source, name, match["molecule"], match["split"], number)
            )
    return found


def _read(
    file: MoleculeFile, labels: LabelSet, index_folder: Path | None, number: int
) -> Molecule:
    prefix = "old_" if labels == "old" else ""
    keys = {
        "numbers": "nuclear_charges",
        "positions": "coords",
        "energies": f"{prefix}energies",
        "forces": f"{prefix}forces",
        "indices": "old_indices",
    }
    where = str(file.source.path / file.name)
    arrays = _arrays(file, where, list(keys.values()))
    n_frames, n_atoms = len(arrays["old_indices"]), len(arrays["nuclear_charges"])
    shapes = ((n_atoms,), (n_frames, n_atoms, 3), (n_frames,), (n_frames, n_atoms, 3))
    for key, shape in zip(keys.values(), shapes, strict=False):
        if arrays[key].shape != shape:
            raise DataError(
                f"{where}: {key} has the shape {arrays[key].shape}, expected {shape}"
            )
    splits: list[str | None] = [file.split] * n_frames
    if file.split is None:
        lists = _lists(file.source, index_folder, number)
        for split, indices in lists:
            for index in indices:
                if not 0 <= index < n_frames:
                    raise DataError(
                        f"frame {index} of the {split} list is not among the "
                        f"{n_frames} of {where}"
                    )
                splits[index] = split
    parts = {field: arrays[key] for field, key in keys.items()}
    return Molecule(where, splits=tuple(splits), **parts)


def _arrays(
    file: MoleculeFile, where: str, keys: Sequence[str]
) -> dict[str, NDArray[Any]]:
    with reading(file.source, file.name) as stream:
        content = io.BytesIO(stream.read())
    try:
        with np.load(content, allow_pickle=False) as stored:
            missing = [key for key in keys if key not in stored.files]
            arrays = {key: stored[key] for key in keys if not missing}
    except Exception as error:  # any byte of the file may be wrong
        raise DataError(
            f"cannot read {where} ({type(error).__name__}); expected an rMD17 .npz file"
        ) from None
    if missing:
        raise DataError(
            f"{where} has no {missing[0]}; expected an rMD17 file"
            + (", or --labels recomputed" if "old_e" in missing[0] else "")
        )
    return arrays


def _lists(
    source: Source, index_folder: Path | None, number: int
) -> list[tuple[str, list[int]]]:
    """Return the frames of both lists, train last: a frame of both is trained on."""
    files = {split: f"index_{split}_{number:02d}.csv" for split in ("test", "train")}
    # as published: npz_data and splits, side by side
    beside = [source.path / "splits", source.path.parent / "splits"]
    given = beside if index_folder is None else [index_folder]
    places: list[Source] = [FolderSource(folder) for folder in given if folder.is_dir()]
    if index_folder is None:
        places.insert(0, source)
    wanted = set(files.values())
    for place in places:
        names = {plain_name(name): name for name in place.names}
        if wanted <= names.keys():
            return [(split, _indices(place, names[f])) for split, f in files.items()]
    if index_folder is not None:
        raise DataError(f"{index_folder} does not hold {' and '.join(sorted(wanted))}")
    return []


def _indices(source: Source, name: str) -> list[int]:
    numbers = []
    for number, line in enumerate(read_lines(source, name), start=1):
        try:
            numbers += [int(float(line))] if line.strip() else []
        except ValueError:
            raise DataError(
                f"{source.path}, {name}, line {number}: found '{line[:40]}', expected "
                "the number of a frame"
            ) from None
    return numbers
