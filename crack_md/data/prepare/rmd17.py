"""`crack-md prepare rmd17`: molecules of molecular dynamics at 500 K.

Two sets of labels: `old` are those of MD17's own potential, with which the frames were
sampled, `recomputed` are PBE/def2-SVP. Only a model trained on `old` may be compared
with the sampled distribution; `recomputed` serves tables of force errors.

    rmd17.tar.bz2: rmd17/npz_data/rmd17_ethanol.npz    all frames of a molecule
                   rmd17/splits/index_train_01.csv     numbers of those to train on
    rmd17_ethanol_train_01.npz                         the frames of one split alone
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from crack_md.data.dataset import FORMAT_VERSION
from crack_md.data.prepare.rmd17_files import LabelSet, Molecule, find_molecules
from crack_md.data.prepare.splits import summarize
from crack_md.data.splits import check_shares, split_of
from crack_md.data.writer import RowWriter

CHUNK = 500
KCAL_PER_MOL = units.kcal / units.mol
"""eV."""
THERMOSTAT_K = 500.0
"""Of all 3N degrees of freedom; the frames are hotter, as `crack-md sample` tells."""
LEVELS = {
    "old": "those of MD17: PBE+vdW-TS, with which the frames were sampled",
    "recomputed": "those of rMD17: PBE/def2-SVP",
}


@dataclass(frozen=True)
class RMD17Counts:
    """What became of the frames."""

    frames: dict[str, int]
    """Written, by split."""
    duplicates: int
    """Frames that occurred more than once, in a train and a test list for example."""


def prepare_rmd17(
    sources: Sequence[Path],
    out: Path,
    *,
    labels: LabelSet,
    molecule: str | None = None,
    index_folder: Path | None = None,
    number: int = 1,
    val: float = 0.05,
    seed: int = 0,
    overwrite: bool = False,
) -> RMD17Counts:
    """Write the frames of a molecule in the order in which they were sampled.

    Frames that are in a train and in a test list stay in training.

    Args:
        sources: `rmd17_MOLECULE.npz`, files that hold one split each
            (`…_train_01.npz`), or folders and archives with such files.
        out: `.aselmdb`, `.db` or `.extxyz`.
        labels: Which energies and forces.
        molecule: Which one, of sources with several.
        index_folder: With `index_train_01.csv` and `index_test_01.csv`; otherwise they
            are looked for in the sources and beside them. A file that names no split,
            without lists, is divided by shares.
        number: Which of the published splits.
        val: Share of the training frames that validate.
        seed: Chooses them.
        overwrite: Replace an existing file.

    Raises:
        DataError: A file is missing, damaged, or lacks the labels.
    """
    check_shares(val=val, test=0.0)
    molecules = find_molecules(
        sources, labels, name=molecule, index_folder=index_folder, number=number
    )
    job = {
        "dataset": "rMD17",
        "labels": labels,
        "sources": [one.where for one in molecules],
        "split_number": number,
        "val": val,
        "seed": seed,
    }
    writer = RowWriter(out, job=job, overwrite=overwrite)
    rows: dict[tuple[str, int], Atoms] = {}
    n_found = 0
    for one in molecules:
        for key, row in _rows(one, val=val, seed=seed):
            n_found += 1
            if key not in rows or row.info["split"] != "test":
                rows[key] = row
    ordered = [rows[key] for key in sorted(rows)]
    for start in range(writer.done, len(ordered), CHUNK):
        writer.append(ordered[start : start + CHUNK], done=start + CHUNK)
    return _finish(writer, job, labels=labels, duplicates=n_found - len(ordered))


def _rows(
    molecule: Molecule, *, val: float, seed: int
) -> Iterator[tuple[tuple[str, int], Atoms]]:
    """Yield frames with the formula and the number in MD17 that they are known by."""
    indexed = any(split is not None for split in molecule.splits)
    for place, split in enumerate(molecule.splits):
        if indexed and split is None:
            continue  # in neither list
        atoms = Atoms(molecule.numbers, molecule.positions[place])
        name, index = atoms.get_chemical_formula(), int(molecule.indices[place])
        group = f"{name}-{index:06d}"
        if split != "test":
            split = split_of(atoms, group, val=val, seed=seed)
        atoms.info = {"group": group, "kind": "thermal", "split": split}
        atoms.info["old_index"] = index
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=float(molecule.energies[place]) * KCAL_PER_MOL,
            forces=molecule.forces[place] * KCAL_PER_MOL,
        )
        yield (name, index), atoms


def _finish(
    writer: RowWriter, job: dict[str, Any], *, labels: LabelSet, duplicates: int
) -> RMD17Counts:
    summary = summarize(writer.partial)
    counts = RMD17Counts(dict(summary.frames), duplicates)
    writer.finish(
        {
            **job,
            "sources": [Path(source).name for source in job["sources"]],
            "format_version": FORMAT_VERSION,
            "level": LEVELS[labels],
            "thermostat_K": THERMOSTAT_K,
            "energy_reference": "total",
            "gas_references": {},
            "n_features": 0,
            "fingerprint": summary.fingerprint,
            **asdict(counts),
            "licence": "CC0-1.0",
            "citation": "Christensen, von Lilienfeld, 2020, arXiv:2007.09593",
        }
    )
    return counts
