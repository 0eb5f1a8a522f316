"""Labels that came with structures, and who made them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from crack_md.data.dataset import read_metadata
from crack_md.data.own_labels import own_labels
from crack_md.errors import DataError
from crack_md.models.teachers import Teacher, TeacherLabels

ORIGIN = ("energy_reference", "gas_references", "split")
"""What a set says about labels that stay when another teacher adds features."""


def label_origin(sources: Sequence[Path], teacher: Teacher) -> dict[str, Any]:
    """Return what tells of labels that sources bring, made by another teacher.

    Their zero of energy, and the gas molecules on it, are that teacher's. Empty where
    the labels are this teacher's, or come without a word about them.

    Raises:
        DataError: Sources have labels of different teachers, which do not mix.
    """
    told = [read_metadata(source) if source.exists() else {} for source in sources]
    makers = [labels_by(one) for one in told]
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
    kept = {key: told[0][key] for key in ORIGIN if key in told[0]}
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
