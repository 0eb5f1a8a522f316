"""What a teacher is asked for when structures are labelled."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from ase import Atoms

from crack_md.data.dataset import free_atoms
from crack_md.errors import TeacherError
from crack_md.models.teachers import Teacher, TeacherLabels, load_teacher
from crack_md.models.teachers.jacobian import STEP_A, draw_coordinates, jacobian_rows

FeatureChoice = Literal["invariant", "all", "none"]


@dataclass(frozen=True)
class Wanted:
    """What a teacher is asked for beside energies and forces."""

    features: FeatureChoice = "invariant"
    """Node features of degree 0, of all degrees (EquiformerV2 teachers), or none."""
    jacobian_rows: int = 0
    """Rows of the force Jacobian; two more evaluations for each."""
    jacobian_step_A: float = STEP_A
    """How far coordinates are moved for the differences."""

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
        if jacobian is not None:
            jacobian = jacobian.first(self.jacobian_rows)
        return replace(labels, node_features=features, jacobian=jacobian)


def load_for(spec: str, wanted: Wanted) -> Teacher:
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
    teacher: Teacher, structures: Sequence[Atoms], wanted: Wanted
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
