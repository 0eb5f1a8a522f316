"""`crack-md label`: structures and a teacher in, a labelled dataset out."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from crack_md.data.dataset import (
    FORMAT_VERSION,
    fingerprint,
    group_of,
    labelled_structure,
    read_metadata,
)
from crack_md.data.gas_references import gas_references
from crack_md.data.origin import label_origin, own_labels, with_own_labels
from crack_md.data.parallel import map_in_order
from crack_md.data.readers import contents_of, read_structures
from crack_md.data.splits import ElementSet, check_shares, is_held_out, split_of
from crack_md.data.teacher_rows import teacher_data, teacher_labels
from crack_md.data.wanted import Wanted, ask, load_for
from crack_md.data.writer import CONTENTS, RowWriter
from crack_md.models.teachers import Teacher, TeacherLabels
from crack_md.models.teachers.jacobian import STEP_A

CHUNK = 32
"""Structures per write; a kill loses at most these."""
LABEL_PREFIX = "teacher_"

_teacher: Teacher | None = None
"""The teacher of this worker process."""


@dataclass(frozen=True)
class SplitRule:
    """How labelled structures are divided; a split that a source fixed is kept."""

    held_out: tuple[ElementSet, ...] = ()
    val: float = 0.05
    test: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares that cannot be."""
        check_shares(val=self.val, test=self.test)


@dataclass(frozen=True)
class LabelCounts:
    """What became of the structures."""

    labelled: int
    dropped: int
    """Left out because a force exceeded the limit."""


def label_structures(
    sources: Sequence[Path],
    out: Path,
    *,
    teacher: str,
    split: SplitRule | None = None,
    wanted: Wanted | None = None,
    leave_out: Sequence[tuple[str, ...]] = (),
    largest_force: float = 15.0,
    only_features: bool = False,
    workers: int = 1,
    overwrite: bool = False,
    report: Callable[[int], None] = lambda done: None,
) -> LabelCounts:
    """Write the sources with a teacher's energies, forces and features to a file.

    Energies and forces that came with a structure stay its task labels; others get the
    teacher's. Labels that `augment` stored with the same weights are kept.

    Args:
        sources: Files and folders with structures.
        out: `.aselmdb`, `.db` or `.extxyz`.
        teacher: As `load_teacher` takes it.
        split: How to assign train, val and test.
        wanted: Which features and how many rows of the force Jacobian.
        leave_out: Elements, or sets of them, whose structures are not labelled.
        largest_force: eV/Å; structures beyond it are left out.
        only_features: Take node features alone from the teacher: energies and forces of
            the source stand for its own.
        workers: Processes, each with a teacher of its own.
        overwrite: Replace an existing file.
        report: Called with the number of structures done.
    """
    split, wanted = split or SplitRule(), wanted or Wanted()
    served = load_for(teacher, wanted)
    origin = label_origin(sources, served)
    job = {
        "sources": [f"{path}:{_content(path)}" for path in sources],
        CONTENTS: contents_of(sources),
        "teacher_sha256": served.sha256,
        "split": asdict(split),
        "largest_force": largest_force,
        "wanted": asdict(wanted),
        "leave_out": ["-".join(symbols) for symbols in leave_out],
    }
    if only_features:
        job["only_features"] = True
    writer = RowWriter(out, job=job, overwrite=overwrite)
    chosen = (
        atoms
        for atoms in _with_provenance(sources, served, wanted)
        if not is_held_out(atoms, leave_out)
    )
    chunks = _chunks(chosen, CHUNK)
    work = partial(
        _label_chunk,
        split=split,
        wanted=wanted,
        largest_force=largest_force,
        only_features=only_features,
    )
    results = map_in_order(
        work,
        islice(chunks, -(-writer.done // CHUNK), None),
        workers=workers,
        start=partial(_start, teacher, wanted),
    )
    done = writer.done
    for count, rows in results:
        done += count
        writer.append(rows, done=done)
        report(done)
    rows = writer.rows()
    writer.finish(_metadata(rows, served, job, origin))
    return LabelCounts(labelled=len(rows), dropped=done - len(rows))


def _metadata(
    rows: list[Atoms], teacher: Teacher, job: dict[str, Any], origin: dict[str, Any]
) -> dict[str, Any]:
    structures = [labelled_structure(row, "a row") for row in rows]
    first = structures[0].teacher if structures else None
    features = None if first is None else first.node_features
    return {
        "format_version": FORMAT_VERSION,
        "teacher": teacher.name,
        "teacher_sha256": teacher.sha256,
        "energy_reference": teacher.energy_reference,
        "gas_references": {} if origin else gas_references(teacher),
        "n_features": 0 if features is None else features.shape[2],
        "jacobian_rows": job["wanted"]["jacobian_rows"],
        "jacobian_step_A": job["wanted"]["jacobian_step_A"],
        "fingerprint": fingerprint(structures),
        "split": job["split"],
        "largest_force": job["largest_force"],
        "sources": [Path(source.rpartition(":")[0]).name for source in job["sources"]],
        **origin,
    }


def _start(spec: str, wanted: Wanted) -> None:
    global _teacher
    _teacher = load_for(spec, wanted)


def _with_provenance(
    sources: Sequence[Path], teacher: Teacher, wanted: Wanted
) -> Iterator[Atoms]:
    """Yield structures; labels stay only where this very teacher made them."""
    for source in sources:
        told = read_metadata(source) if source.exists() else {}
        known = told.get("teacher_sha256") == teacher.sha256
        same_step = told.get("jacobian_step_A", STEP_A) == wanted.jacobian_step_A
        for number, atoms in enumerate(read_structures(source)):
            if not known:
                _forget_labels(atoms, LABEL_PREFIX)
            elif not same_step:
                _forget_labels(atoms, f"{LABEL_PREFIX}jacobian")
            atoms.info["group"] = group_of(atoms, number)
            atoms.info.setdefault("kind", "given")
            yield atoms


def _chunks(items: Iterable[Atoms], size: int) -> Iterator[list[Atoms]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _forget_labels(atoms: Atoms, prefix: str) -> None:
    for holder in (atoms.info, atoms.arrays):
        for key in [key for key in holder if key.startswith(prefix)]:
            del holder[key]


def _label_chunk(
    chunk: list[Atoms],
    *,
    split: SplitRule,
    wanted: Wanted,
    largest_force: float,
    only_features: bool,
) -> tuple[int, list[Atoms]]:
    assert _teacher is not None
    known = [teacher_labels({**atoms.info, **atoms.arrays}) for atoms in chunk]
    complete = [wanted.are_in(labels, _teacher) for labels in known]
    missing = [a for a, there in zip(chunk, complete, strict=True) if not there]
    fresh = iter(ask(_teacher, missing, wanted))
    labels = [
        wanted.of(old) if there and old is not None else next(fresh)
        for old, there in zip(known, complete, strict=True)
    ]
    if only_features:
        labels = [
            with_own_labels(atoms, label)
            for atoms, label in zip(chunk, labels, strict=True)
        ]
    rows = [
        _row(atoms, label, split)
        for atoms, label in zip(chunk, labels, strict=True)
        if label.largest_force <= largest_force
    ]
    return len(chunk), rows


def _row(atoms: Atoms, labels: TeacherLabels, split: SplitRule) -> Atoms:
    row = atoms.copy()
    _forget_labels(row, LABEL_PREFIX)
    group = str(row.info["group"])
    row.info.setdefault("split", split_of(row, group, **_split_options(split)))
    energy, forces = own_labels(atoms) or (labels.energy, labels.forces)
    row.calc = SinglePointCalculator(row, energy=energy, forces=np.array(forces))
    row.info |= teacher_data(labels)
    return row


def _split_options(split: SplitRule) -> dict[str, Any]:
    return {
        "held_out": split.held_out,
        "val": split.val,
        "test": split.test,
        "seed": split.seed,
    }


def _content(path: Path) -> str:
    """Return a fingerprint of a source; for folders, of names and sizes."""
    digest = hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            digest.update(f"{file.name}:{file.stat().st_size}".encode())
    return digest.hexdigest()[:16]
