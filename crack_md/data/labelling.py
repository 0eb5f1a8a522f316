"""`crack-md label`: structures and a teacher in, a labelled dataset out."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.optimize import BFGS
from numpy.typing import NDArray

from crack_md.data.dataset import (
    FORMAT_VERSION,
    check_split,
    fingerprint,
    free_atoms,
    group_of,
    labelled_structure,
    own_labels,
    read_metadata,
    teacher_data,
    teacher_labels,
    without_reference,
)
from crack_md.data.parallel import map_in_order
from crack_md.data.readers import contents_of, read_structures
from crack_md.data.splits import ElementSet, check_shares, is_held_out, split_of
from crack_md.data.writer import CONTENTS, RowWriter
from crack_md.errors import CrackError, DataError, TeacherError
from crack_md.models.teachers import (
    Teacher,
    TeacherCalculator,
    TeacherLabels,
    load_teacher,
)
from crack_md.models.teachers.base import STEP_A, draw_coordinates, jacobian_rows

GASES = ("H2O", "H2")


def gas_references(teacher: Teacher) -> dict[str, float]:
    """Return energies in eV of relaxed H2O and H2, where the teacher knows them.

    A molecule that falls apart or does not come to rest has no reference.
    """
    references = {}
    for name in GASES if teacher.energy_reference == "total" else ():
        atoms = molecule(name)
        if teacher.elements is not None and not teacher.elements.issuperset(
            atoms.numbers.tolist()
        ):
            continue
        atoms.calc = TeacherCalculator(teacher)
        try:
            rests = BFGS(atoms, logfile=None).run(fmax=0.005, steps=100)
        except CrackError:
            continue
        if rests:
            references[name] = float(atoms.get_potential_energy())
    return references


ORIGIN = ("energy_reference", "gas_references", "split")
"""What a set says about labels that stay when another teacher adds features."""


def label_origin(sources: Sequence[Path], teacher: Teacher) -> dict[str, Any]:
    """Return what tells of labels that sources bring, made by another teacher.

    Their zero of energy, and the gas molecules on it, are that teacher's. Empty where
    the labels are this teacher's, or come without a word about them.

    Raises:
        DataError: Sources have labels of different teachers, which do not mix.
    """
    records = [read_metadata(source) if source.exists() else {} for source in sources]
    makers = [labels_by(one) for one in records]
    others = {sha256 for _, sha256 in makers if sha256} - {teacher.sha256}
    if not others:
        return {}
    if len({sha256 for _, sha256 in makers}) > 1:
        names = ", ".join(name or "no one named" for name, _ in makers)
        raise DataError(
            f"the sources have labels by {names}; energies of different teachers do "
            "not mix: label each source to a file of its own"
        )
    name, sha256 = makers[0]
    kept = {key: records[0][key] for key in ORIGIN if key in records[0]}
    return {**kept, "labels_by": name, "labels_by_sha256": sha256}


def labels_by(metadata: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and fingerprint of who made the labels of a set; empty if unsaid."""
    if "fingerprint" not in metadata:  # frames of augment have no labels of their own
        return "", ""
    teacher = metadata.get("teacher", ""), metadata.get("teacher_sha256", "")
    return (
        str(metadata.get("labels_by", teacher[0])),
        str(metadata.get("labels_by_sha256", teacher[1])),
    )


def with_own_labels(atoms: Atoms, labels: TeacherLabels) -> TeacherLabels:
    """Return a teacher's features beside the energy and forces of the source."""
    own = own_labels(atoms)
    if own.energy is None or own.forces is None:
        raise DataError(
            f"{atoms.get_chemical_formula()} brings {own.kind}, and the teacher gives "
            "its features only; expected energy and forces: label it without "
            "--only-features"
        )
    return TeacherLabels(own.energy, own.forces, node_features=labels.node_features)


FeatureChoice = Literal["invariant", "all", "none"]


@dataclass(frozen=True)
class LabelRequest:
    """What a teacher is asked for beside energies and forces."""

    features: FeatureChoice = "invariant"
    """Node features of degree 0, of all degrees (EquiformerV2 teachers), or none."""
    jacobian_rows: int = 0
    """Rows of the force Jacobian; two more evaluations for each."""
    jacobian_step_A: float = STEP_A
    """How far coordinates are moved for the differences."""
    half_features: bool = False
    """Store features in float16: half the size, rounded to three digits."""

    @property
    def record(self) -> dict[str, Any]:
        """Return the choices as files record them."""
        record = asdict(self)
        if not self.half_features:  # as versions wrote that had no choice
            del record["half_features"]
        return record

    def are_in(self, labels: TeacherLabels | None, teacher: Teacher) -> bool:
        """Return whether labels that this teacher made before have all of it."""
        if labels is None:
            return False
        features, jacobian = labels.node_features, labels.jacobian
        if self.features != "none" and teacher.has_features:
            if features is None:
                return False
            if self.features == "all" and features.shape[1] == 1:
                return False
            if features.dtype == np.float16 and not self.half_features:
                return False
        # frames of older versions come without; a set where some lack them has none
        if labels.node_energy is None and getattr(teacher, "has_node_energy", False):
            return False
        return self.jacobian_rows <= (0 if jacobian is None else len(jacobian.atom))

    def of(self, labels: TeacherLabels) -> TeacherLabels:
        """Return labels without what is not wanted.

        The first rows of a longer Jacobian are those that would have been drawn.
        """
        features, jacobian = labels.node_features, labels.jacobian
        if features is not None and self.features != "all":
            features = features[:, :1] if self.features == "invariant" else None
        if features is not None and self.half_features:
            features = _halved(features)
        if jacobian is not None:
            jacobian = jacobian.first(self.jacobian_rows)
        return replace(labels, node_features=features, jacobian=jacobian)


def _halved(features: NDArray[np.floating]) -> NDArray[np.floating]:
    limit = float(np.finfo(np.float16).max)
    if np.abs(features).max(initial=0.0) > limit:
        raise DataError(
            f"a node feature of the teacher is beyond {limit:.0f}, which float16 "
            "cannot hold; label without --half-features"
        )
    return features.astype(np.float16)


def load_for(spec: str, wanted: LabelRequest) -> Teacher:
    """Return the teacher, made to give what is wanted.

    Raises:
        TeacherError: It cannot.
    """
    teacher = load_teacher(spec, all_degrees=wanted.features == "all")
    if wanted.features == "all" and not getattr(teacher, "all_degrees", False):
        raise TeacherError(
            f"the teacher {teacher.name} has no node features above degree 0; take "
            "--features invariant, or an EquiformerV2 teacher"
        )
    return teacher


def ask(
    teacher: Teacher, structures: Sequence[Atoms], wanted: LabelRequest
) -> list[TeacherLabels]:
    """Return what the teacher says about every structure.

    Which coordinates rows of the Jacobian belong to depends on the structure alone:
    neither its place in a file nor the number of workers matters.
    """
    labels = [wanted.of(one) for one in teacher.predict(structures)]
    if wanted.jacobian_rows == 0 or not structures:
        return labels
    coordinates = [
        draw_coordinates(free_atoms(atoms), wanted.jacobian_rows, _random_of(atoms))
        for atoms in structures
    ]
    rows = jacobian_rows(
        teacher, structures, coordinates, step_A=wanted.jacobian_step_A
    )
    return [
        replace(one, jacobian=found) for one, found in zip(labels, rows, strict=True)
    ]


def _random_of(atoms: Atoms) -> np.random.Generator:
    digest = hashlib.sha256(atoms.numbers.tobytes() + atoms.positions.tobytes())
    return np.random.default_rng(int.from_bytes(digest.digest()[:8], "little"))


CHUNK = 32
"""Structures per write; a kill loses at most these."""
REPLACED = "replaced"
"""Among the kinds of labels: structures of which some were replaced."""
LABEL_PREFIX = "teacher_"


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
    own: Mapping[str, int] = field(default_factory=dict)
    """How many structures brought which labels, "energy" alone, say."""

    def lines(self) -> list[str]:
        """Return what was kept and what was replaced, in words."""
        words = {
            "energy and forces": "keep the energy and forces they came with",
            "energy": "came with an energy alone: it is kept, forces are the teacher's",
            "forces": "came with forces alone: they are kept, the energy is the "
            "teacher's",
            REPLACED: "have other values under REF_energy or REF_forces: those are "
            "taken",
        }
        return [f"{self.own[kind]} {words[kind]}" for kind in words if kind in self.own]


def label_structures(
    sources: Sequence[Path],
    out: Path,
    *,
    teacher: str,
    split: SplitRule | None = None,
    wanted: LabelRequest | None = None,
    leave_out: Sequence[tuple[str, ...]] = (),
    largest_force: float = 15.0,
    only_features: bool = False,
    workers: int = 1,
    overwrite: bool = False,
    report: Callable[[int], None] = lambda done: None,
) -> LabelCounts:
    """Write the sources with a teacher's energies, forces and features to a file.

    Each label that came with a structure stays its task label, an energy without forces
    too; what is missing is the teacher's. Labels that `augment` stored with the same
    weights are kept. REF_energy and REF_forces go before those of a calculator.

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
    split, wanted = split or SplitRule(), wanted or LabelRequest()
    served = load_for(teacher, wanted)
    origin = label_origin(sources, served)
    job = {
        "sources": [f"{path}:{_content(path)}" for path in sources],
        CONTENTS: contents_of(sources),
        "teacher_sha256": served.sha256,
        "split": asdict(split),
        "largest_force": largest_force,
        "wanted": wanted.record,
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
        start=partial(load_for, teacher, wanted),
    )
    done, kinds = writer.done, Counter(writer.notes)
    for count, rows, found in results:
        done, kinds = done + count, kinds + found
        writer.append(rows, done=done, notes=dict(kinds))
        report(done)
    n_rows = writer.n_rows
    writer.finish(_metadata(writer.rows(), served, job, origin))
    return LabelCounts(n_rows, done - n_rows, dict(kinds))


def _metadata(
    rows: Iterator[Atoms], teacher: Teacher, job: dict[str, Any], origin: dict[str, Any]
) -> dict[str, Any]:
    # one in memory at a time: features of a large set are larger than that
    structures = (labelled_structure(row, "a row") for row in rows)
    first = next(structures, None)
    told = None if first is None else first.teacher
    features = None if told is None else told.node_features
    everything = chain([] if first is None else [first], structures)
    return {
        "format_version": FORMAT_VERSION,
        "teacher": teacher.name,
        "teacher_sha256": teacher.sha256,
        "energy_reference": teacher.energy_reference,
        "gas_references": {} if origin else gas_references(teacher),
        "n_features": 0 if features is None else features.shape[2],
        "jacobian_rows": job["wanted"]["jacobian_rows"],
        "jacobian_step_A": job["wanted"]["jacobian_step_A"],
        "fingerprint": fingerprint(everything),
        "split": job["split"],
        "largest_force": job["largest_force"],
        "sources": [Path(source.rpartition(":")[0]).name for source in job["sources"]],
        **origin,
    }


def _with_provenance(
    sources: Sequence[Path], teacher: Teacher, wanted: LabelRequest
) -> Iterator[Atoms]:
    """Yield structures; labels stay only where this very teacher made them."""
    for source in sources:
        record = read_metadata(source) if source.exists() else {}
        known = record.get("teacher_sha256") == teacher.sha256
        same_step = record.get("jacobian_step_A", STEP_A) == wanted.jacobian_step_A
        for number, atoms in enumerate(read_structures(source)):
            if not known:
                _forget_labels(atoms, LABEL_PREFIX)
            elif not same_step:
                _forget_labels(atoms, f"{LABEL_PREFIX}jacobian")
            where = f"{source}, structure {number + 1}"
            check_split(atoms, where)
            try:
                own_labels(atoms)
            except DataError as error:
                raise DataError(f"{where} has {error}") from error
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
    teacher: Teacher,
    *,
    split: SplitRule,
    wanted: LabelRequest,
    largest_force: float,
    only_features: bool,
) -> tuple[int, list[Atoms], Counter[str]]:
    known = [
        teacher_labels({**atoms.info, **atoms.arrays}, len(atoms)) for atoms in chunk
    ]
    complete = [wanted.are_in(labels, teacher) for labels in known]
    missing = [a for a, there in zip(chunk, complete, strict=True) if not there]
    fresh = iter(ask(teacher, missing, wanted))
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
        label_row(atoms, label, split)
        for atoms, label in zip(chunk, labels, strict=True)
        if label.largest_force <= largest_force
    ]
    own = [own_labels(atoms) for atoms in chunk]
    kinds = Counter(one.kind for one in own)
    kinds[REPLACED] = sum(one.replaced for one in own)
    return len(chunk), rows, +kinds


def label_row(atoms: Atoms, labels: TeacherLabels, split: SplitRule) -> Atoms:
    """Return a structure with its labels and its split, as it is stored."""
    row = without_reference(atoms)
    _forget_labels(row, LABEL_PREFIX)
    group = str(row.info["group"])
    row.info.setdefault("split", split_of(row, group, **_split_options(split)))
    own = own_labels(atoms)
    energy = labels.energy if own.energy is None else own.energy
    forces = labels.forces if own.forces is None else own.forces
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
