"""Lattice constants of fcc metals from a teacher, and Vegard's rule."""

from collections.abc import Mapping, Sequence

import numpy as np
from ase.build import bulk

from crack_md.errors import TeacherError
from crack_md.models.teachers.base import Teacher


def vegard(symbols: Sequence[str], lattice_constants: Mapping[str, float]) -> float:
    """Return the mean of the pure metals' lattice constants in Å."""
    return float(np.mean([lattice_constants[symbol] for symbol in symbols]))


def teacher_lattice_constants(
    elements: tuple[str, ...], teacher: Teacher
) -> dict[str, float]:
    """Return the fcc lattice constants in Å at which the teacher's energy is lowest."""
    return {symbol: _fcc_minimum(symbol, teacher) for symbol in elements}


def _fcc_minimum(symbol: str, teacher: Teacher) -> float:
    def energy(lattice_constant: float) -> float:
        cell = bulk(symbol, "fcc", a=lattice_constant)
        return teacher.predict([cell])[0].energy

    center, step = 3.9, 0.15
    for _ in range(12):
        below, here, above = (energy(center + shift) for shift in (-step, 0.0, step))
        curvature = below - 2 * here + above
        if curvature <= 0 or min(below, above) < here:
            center += step if above < below else -step
            continue
        center += 0.5 * step * (below - above) / curvature
        step /= 4
        if step < 0.005:
            return round(center, 4)
    raise TeacherError(
        f"the teacher {teacher.name} has no fcc minimum of {symbol} near 3.9 Å; give "
        "lattice_constants in the recipe"
    )
