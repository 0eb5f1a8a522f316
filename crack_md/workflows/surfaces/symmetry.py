"""Which operations map a slab onto itself with its upper side up, by spglib."""

import warnings

import numpy as np
import spglib
from ase import Atoms
from numpy.typing import NDArray

from crack_md.workflows.surfaces.contact_surface import Points

SYMMETRY_TOLERANCE_A = 0.1


def flat_cell(atoms: Atoms) -> Points:
    """Return the cell with its third vector along the normal."""
    cell = atoms.cell.array.copy()
    cell[2, :2] = 0.0  # a lean of c matters in the vacuum only
    return cell


def surface_operations(atoms: Atoms) -> tuple[Points, Points]:
    """Return rotations and translations (scaled) that keep the upper side up."""
    cell = flat_cell(atoms)
    scaled = np.linalg.solve(cell.T, atoms.positions.T).T
    with warnings.catch_warnings():
        # spglib 2.7 announces exceptions instead of None: both are handled here.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            found = spglib.get_symmetry(
                (cell.tolist(), scaled.tolist(), atoms.numbers.tolist()),
                symprec=SYMMETRY_TOLERANCE_A,
            )
        except spglib.SpglibError:
            found = None
    if found is None:
        return np.eye(3)[None], np.zeros((1, 3))
    rotations, translations = found["rotations"], found["translations"]
    keep = [index for index, turn in enumerate(rotations) if _keeps_top(turn)]
    return rotations[keep].astype(float), translations[keep]


def _keeps_top(rotation: NDArray[np.int_]) -> bool:
    mixes = rotation[2, :2].any() or rotation[:2, 2].any()
    return bool(rotation[2, 2] == 1 and not mixes)
