"""Symmetry that is kept, beside constraints that must have it as well."""

import numpy as np
from ase import Atoms
from ase.constraints import FixSymmetry
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.errors import StructureError
from crack_md.workflows.relax.cell import require_periodic

Vectors = Float[NDArray[np.float64], "atom 3"]
TOLERANCE = 0.02
"""Of the test, relative: cells are symmetric to about 0.01 Å in 3 Å."""
SHOWN = 6


def hold_symmetry(atoms: Atoms, *, tolerance_A: float) -> None:
    """Add, in place, the constraint that keeps the symmetry.

    Without other constraints the structure is first made symmetric to round-off. With
    them it stays as it is, for held atoms may not move; all its steps are symmetric.

    Raises:
        StructureError: not a crystal, or constraints that the symmetry does not have.
    """
    require_periodic(atoms, "symmetry")
    refined = atoms.copy()
    refined.set_constraint()
    symmetry = FixSymmetry(refined, symprec=tolerance_A)
    if atoms.constraints:
        _require_invariant(atoms, symmetry, refined.cell.array)
    else:
        atoms.set_cell(refined.cell)
        atoms.set_positions(refined.positions)
    atoms.set_constraint([*atoms.constraints, symmetry])


def _require_invariant(
    atoms: Atoms, symmetry: FixSymmetry, cell: Float[NDArray[np.float64], "3 3"]
) -> None:
    """Refuse constraints C that an operation U does not map onto themselves.

    C U v = U C v for one random v means, but for odd chance, that C U = U C.
    """
    vectors = np.random.default_rng(0).standard_normal((len(atoms), 3))
    held = _constrained(atoms, vectors)
    wrong = np.zeros(len(atoms), dtype=bool)
    for rotation, atom_map in zip(symmetry.rotations, symmetry.symm_map, strict=True):
        turn = cell.T @ rotation @ np.linalg.inv(cell.T)
        first = _constrained(atoms, _moved(vectors, turn, atom_map))
        wrong |= np.abs(first - _moved(held, turn, atom_map)).max(axis=1) > TOLERANCE
    if wrong.any():
        kinds = ", ".join(sorted({type(c).__name__ for c in atoms.constraints}))
        found = np.flatnonzero(wrong)
        names = ", ".join(map(str, found[:SHOWN]))
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise StructureError(
            f"symmetry cannot be kept: its operations do not map the constraints "
            f"({kinds}) onto themselves, at atoms {names}{more}; constrain "
            "all or none of the atoms that are equivalent, or relax without symmetry"
        )


def _moved(vectors: Vectors, turn: Vectors, atom_map: NDArray[np.int_]) -> Vectors:
    """Return vectors turned and brought to the atoms that theirs are mapped to."""
    moved = np.empty_like(vectors)
    moved[atom_map] = vectors @ turn.T
    return moved


def _constrained(atoms: Atoms, vectors: Vectors) -> Vectors:
    """Return what constraints leave of forces."""
    left = vectors.copy()
    for constraint in atoms.constraints:
        constraint.adjust_forces(atoms, left)
    return left
