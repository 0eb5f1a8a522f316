"""What no table can be made of, and why."""

import ase
import numpy as np

from crack_md.errors import StructureError
from crack_md.neighbors.pairs import Pairs

SHORTEST_DISTANCE = 1e-2
"""Atoms closer than this are on top of each other and have no direction, in Å."""
FARTHEST = 1e6
"""Largest coordinate in Å that is taken for a structure."""
THINNEST_CELL = 0.1
"""Smallest singular value of the periodic cell vectors in Å."""


def check_geometry(atoms: ase.Atoms) -> None:
    """Refuse structures in which no pair of atoms has a place.

    Raises:
        StructureError: no atoms, positions or cell that are not finite, or a periodic
            direction without a cell vector.
    """
    if len(atoms) == 0:
        raise StructureError("the structure has no atoms; expected at least one")
    wrong = np.flatnonzero(~(np.abs(atoms.positions) < FARTHEST).all(axis=1))
    if wrong.size:
        raise StructureError(
            f"atom {wrong[0]} is at {atoms.positions[wrong[0]].tolist()}, expected "
            f"coordinates below {FARTHEST:.0e} Å; check the file, or the time step if "
            "it comes from a simulation"
        )
    if not np.isfinite(atoms.cell.array).all():
        raise StructureError(f"the cell {atoms.cell.tolist()} is not finite; set it")
    periodic = atoms.cell.array[atoms.pbc]
    if np.linalg.matrix_rank(periodic, tol=THINNEST_CELL) < len(periodic):
        raise StructureError(
            f"the structure is periodic along {atoms.pbc.tolist()} but its cell "
            f"{atoms.cell.tolist()} does not span these directions; set the cell, or "
            "set pbc to False where the structure ends"
        )


def check_distances(pairs: Pairs) -> None:
    """Refuse atoms on top of each other.

    Raises:
        StructureError: a pair is closer than `SHORTEST_DISTANCE`.
    """
    if pairs.distance.size and pairs.distance.min() < SHORTEST_DISTANCE:
        closest = pairs.distance.argmin()
        raise StructureError(
            f"atoms {pairs.receiver[closest]} and {pairs.sender[closest]} are "
            f"{pairs.distance[closest]:.4f} Å apart, expected at least "
            f"{SHORTEST_DISTANCE} Å; remove the duplicate atom or correct the cell"
        )
