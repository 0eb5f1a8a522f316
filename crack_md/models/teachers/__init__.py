"""Teachers: potentials that label structures for a student to learn from.

nequix:WEIGHTS.nqx     Nequix, with its own package installed
eqv2:CHECKPOINT.pt     EquiformerV2, ours or imported; also plain CHECKPOINT.pt
default                the packaged student, or another packaged model by its name
fairchem:MODEL#TASK    UMA or eSEN: a file or a published name, with fairchem-core 2.24
tensornet:FOLDER       TensorNet of MatPES, with model.json and state.pt
recipe:FILE.yaml       a weighted sum of increments of several of these
emt                    ASE's effective medium theory, labels only, for trials
"""

from pathlib import Path

import torch

from crack_md.errors import TeacherError
from crack_md.models.registry import model_names, model_path
from crack_md.models.teachers.base import (
    AseTeacher,
    JacobianRows,
    Teacher,
    TeacherCalculator,
    TeacherLabels,
    as_periodic,
)

__all__ = [
    "AseTeacher",
    "JacobianRows",
    "Teacher",
    "TeacherCalculator",
    "TeacherLabels",
    "as_periodic",
    "load_teacher",
]


def load_teacher(
    spec: str, *, device: torch.device | str = "cpu", all_degrees: bool = False
) -> Teacher:
    """Return the teacher that a short text names.

    Args:
        spec: `nequix:PATH`, `tensornet:FOLDER`, `eqv2:PATH`, `fairchem:PATH#TASK`,
            the path of a checkpoint, the name of a packaged model, or `emt`.
        device: Where to evaluate it.
        all_degrees: Let EquiformerV2 and fairchem teachers return their features of
            every degree; others have invariants alone.

    Raises:
        TeacherError: The text names no teacher, or its file is missing.
        MissingDependencyError: The teacher's package is not installed.
    """
    kind, colon, path = spec.partition(":")
    if spec.lower() == "emt":
        return _emt()
    if colon and kind == "nequix":
        from crack_md.models.teachers.nequix import NequixTeacher

        return NequixTeacher(path, device=device)
    if colon and kind == "tensornet":
        from crack_md.models.teachers.tensornet import TensorNetTeacher

        return TensorNetTeacher(path, device=device)
    if colon and kind == "recipe":
        from crack_md.models.teachers.increments import load_increment_teacher

        return load_increment_teacher(path, device=device)
    if colon and kind == "fairchem":
        from crack_md.models.teachers.fairchem import FairchemTeacher

        return FairchemTeacher(path, device=device, all_degrees=all_degrees)
    if spec in model_names():
        from crack_md.models.teachers.equiformer import EquiformerTeacher

        return EquiformerTeacher.from_file(
            model_path(spec), device=device, all_degrees=all_degrees
        )
    if (colon and kind == "eqv2") or Path(spec).suffix in (".pt", ".pth", ".ckpt"):
        from crack_md.models.teachers.equiformer import EquiformerTeacher

        return EquiformerTeacher.from_file(
            path if colon else spec, device=device, all_degrees=all_degrees
        )
    raise TeacherError(
        f"unknown teacher '{spec}'; expected nequix:WEIGHTS.nqx, tensornet:FOLDER, "
        "eqv2:CHECKPOINT.pt, fairchem:CHECKPOINT.pt#TASK, recipe:FILE.yaml, the path "
        "of a .pt checkpoint, default or emt"
    )


def _emt() -> Teacher:
    from ase.calculators.emt import EMT, parameters
    from ase.data import atomic_numbers

    # N, C and O are EMT toys with metals' form; H, C, N, O still run and serve trials
    known = frozenset(atomic_numbers[symbol] for symbol in parameters)
    return AseTeacher(EMT(), name="emt", elements=known)
