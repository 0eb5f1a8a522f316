"""`crack-md prepare rmd17`: molecules sampled by molecular dynamics at 500 K.

Two sets of labels: `old` are those of MD17's own potential, with which the frames were
sampled, `recomputed` are PBE/def2-SVP. Only a model trained on `old` may be compared
with the sampled distribution; `recomputed` serves tables of force errors.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from crack_md.data.dataset import FORMAT_VERSION, fingerprint, labelled_structure
from crack_md.data.splits import split_of
from crack_md.data.writer import RowWriter
from crack_md.errors import DataError

CHUNK = 500
KCAL_PER_MOL = units.kcal / units.mol
"""eV."""
TEMPERATURE_K = 500.0

LabelSet = Literal["old", "recomputed"]
_KEYS = ("nuclear_charges", "coords", "energies", "forces")


@dataclass(frozen=True)
class Molecule:
    """The frames of one file; `split` is what its name or an index list says."""

    path: Path
    arrays: dict[str, NDArray[Any]]
    splits: tuple[str | None, ...]


def prepare_rmd17(
    sources: Sequence[Path],
    out: Path,
    *,
    labels: LabelSet,
    index_folder: Path | None = None,
    number: int = 1,
    val: float = 0.05,
    seed: int = 0,
    overwrite: bool = False,
) -> tuple[int, int]:
    """Write the frames in the order in which they were sampled.

    Published train and test lists share a few frames; those stay in training.

    Args:
        sources: `rmd17_MOLECULE.npz`, or files that hold one split each
            (`…_train_01.npz`).
        out: `.aselmdb`, `.db` or `.extxyz`.
        labels: Which energies and forces.
        index_folder: With `index_train_01.csv` and `index_test_01.csv`; without, files
            that name no split are divided by shares, one frame a group.
        number: Which of the published splits.
        val: Share of the training frames that validate.
        seed: Chooses them.
        overwrite: Replace an existing file.

    Returns:
        The number of frames written, and of those left out as duplicates.

    Raises:
        DataError: A file is missing, damaged, or lacks the labels.
    """
    molecules = [_read(path, labels, index_folder, number) for path in sources]
    writer = RowWriter(out, job={"labels": labels}, overwrite=overwrite)
    rows: dict[tuple[str, int], Atoms] = {}
    n_found = 0
    for molecule in molecules:
        for key, row in _rows(molecule, labels, val=val, seed=seed):
            n_found += 1
            if key not in rows or row.info["split"] != "test":
                rows[key] = row
    ordered = [rows[key] for key in sorted(rows)]
    for start in range(0, len(ordered), CHUNK):
        writer.append(ordered[start : start + CHUNK], done=start + CHUNK)
    structures = [labelled_structure(row, "a row") for row in ordered]
    writer.finish(
        {
            "format_version": FORMAT_VERSION,
            "dataset": "rMD17",
            "labels": labels,
            "temperature_K": TEMPERATURE_K,
            "energy_reference": "total",
            "gas_references": {},
            "n_features": 0,
            "fingerprint": fingerprint(structures),
            "sources": [path.name for path in sources],
        }
    )
    return len(ordered), n_found - len(ordered)


def _read(
    path: Path, labels: LabelSet, index_folder: Path | None, number: int
) -> Molecule:
    wanted = [*_KEYS, "old_indices"]
    if labels == "old":
        wanted += ["old_energies", "old_forces"]
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in wanted if key not in file.files]
            if missing:
                raise DataError(
                    f"{path} has no {missing[0]}; expected an rMD17 file"
                    + (", or --labels recomputed" if "old_e" in missing[0] else "")
                )
            arrays = {key: file[key] for key in wanted}
    except DataError:
        raise
    except Exception as error:  # any byte of the file may be wrong
        raise DataError(
            f"cannot read {path} ({type(error).__name__}); expected an rMD17 .npz file"
        ) from None
    splits: list[str | None] = [None] * len(arrays["energies"])
    named = re.search(r"_(train|test)(?:_\d+)?$", path.stem)
    if named:
        splits = [named[1]] * len(splits)
    elif index_folder is not None:
        for split in ("test", "train"):  # a frame of both is one of training
            for index in _indices(index_folder / f"index_{split}_{number:02d}.csv"):
                if not 0 <= index < len(splits):
                    raise DataError(
                        f"{index_folder}: frame {index} of the {split} list is not "
                        f"among the {len(splits)} of {path}"
                    )
                splits[index] = split
    return Molecule(path, arrays, tuple(splits))


def _indices(path: Path) -> list[int]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [int(float(row[0])) for row in csv.reader(stream) if row]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}; expected one frame number a line") from None


def _rows(
    molecule: Molecule, labels: LabelSet, *, val: float, seed: int
) -> Iterator[tuple[tuple[str, int], Atoms]]:
    arrays = molecule.arrays
    prefix = "old_" if labels == "old" else ""
    indexed = any(split is not None for split in molecule.splits)
    for place, split in enumerate(molecule.splits):
        if indexed and split is None:
            continue  # in neither list
        atoms = Atoms(arrays["nuclear_charges"], arrays["coords"][place])
        name, index = atoms.get_chemical_formula(), int(arrays["old_indices"][place])
        group = f"{name}-{index:06d}"
        if split != "test":
            split = split_of(atoms, group, val=val, seed=seed)
        atoms.info = {"group": group, "kind": "thermal", "split": split}
        atoms.info["old_index"] = index
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=float(arrays[f"{prefix}energies"][place]) * KCAL_PER_MOL,
            forces=arrays[f"{prefix}forces"][place] * KCAL_PER_MOL,
        )
        yield (name, index), atoms
