"""Rows of a teacher's force Jacobian, by central differences of its forces.

Works for every teacher, also for those whose forces are no gradient, at the price of
two evaluations per row.
"""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from crack_md.models.teachers.base import JacobianRows, Teacher

STEP_A = 0.01
"""Å; differences in float32 lose as much to round-off as to curvature about here."""


def draw_coordinates(
    free: NDArray[np.bool_], n_rows: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (row,) atoms and axes of free atoms, none twice while there are enough.

    Args:
        free: (atom,) True for atoms that may move; without any, all atoms may.
        n_rows: How many coordinates.
        random: Chooses.
    """
    movable = np.flatnonzero(free) if free.any() else np.arange(len(free))
    chosen = random.permutation(3 * len(movable))
    chosen = np.resize(chosen, n_rows)  # from the first again, if there are too few
    return movable[chosen // 3], chosen % 3


def jacobian_rows(
    teacher: Teacher,
    structures: Sequence[Atoms],
    coordinates: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    *,
    step_A: float = STEP_A,
) -> list[JacobianRows]:
    """Return [F(r + h) − F(r − h)]/2h in eV/Å² along coordinates of every structure.

    Args:
        teacher: Asked for all moved structures at once.
        structures: Where to differentiate.
        coordinates: For each structure, the (row,) atoms and axes that move.
        step_A: h in Å.
    """
    moved = [
        _moved(atoms, atom, axis, sign * step_A)
        for atoms, (atoms_that_move, axes) in zip(structures, coordinates, strict=True)
        for atom, axis in zip(atoms_that_move.tolist(), axes.tolist(), strict=True)
        for sign in (1, -1)
    ]
    answers = iter(teacher.predict(moved))
    found = []
    for atoms, (atoms_that_move, axes) in zip(structures, coordinates, strict=True):
        rows = np.empty((len(axes), len(atoms), 3), dtype=np.float32)
        for row in rows:
            ahead, behind = next(answers).forces, next(answers).forces
            row[:] = (ahead - behind) / (2 * step_A)
        found.append(JacobianRows(atoms_that_move, axes, rows))
    return found


def _moved(atoms: Atoms, atom: int, axis: int, distance: float) -> Atoms:
    moved = atoms.copy()
    moved.positions[atom, axis] += distance
    return moved
