"""What no table can be made of, and why."""

import ase
import numpy as np

from crack_md.errors import StructureError
from crack_md.neighbors.pairs import Pairs

SHORTEST_DISTANCE = 1e-2
"""Atoms closer than this are on top of each other and have no direction, in Å."""
FARTHEST = 1e7
"""Largest coordinate in Å that is taken for a structure: float64 is exact to 2e-9."""
LONGEST_CELL = 1e4
"""Longest periodic cell vector in Å; no structure of atoms comes near."""
MOST_CELLS = 2**23
"""How many cells away from the origin float32 still counts one by one."""
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
    _check_lengths(atoms, periodic)


def _check_lengths(atoms: ase.Atoms, periodic: np.ndarray) -> None:
    lengths = np.linalg.norm(periodic, axis=1)
    if (lengths > LONGEST_CELL).any():
        raise StructureError(
            f"a periodic cell vector is {lengths.max():.3g} Å long, expected at most "
            f"{LONGEST_CELL:.0e} Å; check the unit of the cell, or set pbc to False "
            "along it"
        )
    hops = np.abs(atoms.positions).max() / lengths.min(initial=np.inf)
    if hops > MOST_CELLS:
        raise StructureError(
            f"an atom is {hops:.1e} cells away from the origin; wrap the structure "
            "into its cell"
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
