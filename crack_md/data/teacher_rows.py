"""What a teacher said, as the entries of one database row, and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crack_md.errors import DataError
from crack_md.models.teachers.base import JacobianRows, TeacherLabels

PART = "teacher_energy_by_"
"""Before the name of one of several teachers: what it would say alone, eV."""


def teacher_data(labels: TeacherLabels) -> dict[str, Any]:
    """Return a teacher's labels as the entries of `row.data`.

    What belongs to atoms has one row per atom and at most two axes, which is what the
    columns of extended XYZ can hold too.
    """
    n_atoms = len(labels.forces)
    data: dict[str, Any] = {
        "teacher_energy": labels.energy,
        "teacher_forces": np.asarray(labels.forces),
    }
    features = labels.node_features
    if features is not None:
        data["teacher_node_features"] = features.reshape(n_atoms, -1).astype(np.float32)
        if features.shape[1] > 1:
            data["teacher_coefficients"] = features.shape[1]
    if labels.node_energy is not None:
        data["teacher_node_energy"] = labels.node_energy
    for name, energy in (labels.parts or {}).items():
        data[f"{PART}{name}"] = energy
    if labels.spread is not None:
        data["teacher_spread"] = labels.spread
    if labels.jacobian is not None:
        rows = labels.jacobian.values.transpose(1, 0, 2).reshape(n_atoms, -1)
        data["teacher_jacobian"] = rows.astype(np.float32)
        data["teacher_jacobian_atom"] = labels.jacobian.atom
        data["teacher_jacobian_axis"] = labels.jacobian.axis
    return data


def teacher_labels(info: dict[str, Any], n_atoms: int) -> TeacherLabels | None:
    """Return the teacher's labels that `row.data` holds, if it holds any.

    Raises:
        DataError: One is missing, or of another kind or shape.
    """
    if "teacher_energy" not in info:
        return None
    try:
        return _labels(info, n_atoms)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        missing = isinstance(error, KeyError)
        reason = f"no {error}" if missing else " ".join(str(error).split())
        raise DataError(
            f"a teacher_energy but labels that are no teacher's ({reason}); rename or "
            "remove entries that begin with teacher_, or label it again"
        ) from error


def _labels(info: dict[str, Any], n_atoms: int) -> TeacherLabels:
    forces = np.asarray(info["teacher_forces"], dtype=np.float64).reshape(n_atoms, 3)
    features = info.get("teacher_node_features")
    atomic = info.get("teacher_node_energy")
    shape = (len(forces), int(info.get("teacher_coefficients", 1)), -1)
    return TeacherLabels(
        energy=float(info["teacher_energy"]),
        forces=forces,
        node_features=None if features is None else _own(features).reshape(shape),
        node_energy=None
        if atomic is None
        else np.asarray(atomic, dtype=np.float64).reshape(len(forces)),
        jacobian=_jacobian(info, len(forces)),
        parts=_parts(info),
        spread=float(info["teacher_spread"]) if "teacher_spread" in info else None,
    )


def _parts(info: dict[str, Any]) -> dict[str, float] | None:
    named = {
        key.removeprefix(PART): float(value)
        for key, value in info.items()
        if key.startswith(PART)
    }
    return named or None


def _jacobian(info: dict[str, Any], n_atoms: int) -> JacobianRows | None:
    if "teacher_jacobian" not in info:
        return None
    # extended XYZ turns arrays of one entry into numbers
    atom, axis = (
        np.atleast_1d(info[f"teacher_jacobian_{name}"]).astype(np.int64)
        for name in ("atom", "axis")
    )
    rows = _own(info["teacher_jacobian"]).reshape(n_atoms, len(atom), 3)
    return JacobianRows(atom, axis, np.ascontiguousarray(rows.transpose(1, 0, 2)))


def _own(array: Any) -> NDArray[np.float32]:
    """Return the array in memory that may be written to, as tensors want it.

    ASE's databases hand out arrays that lie in the text they were read from.
    """
    return np.require(array, dtype=np.float32, requirements=["C", "W"])
