"""Which way a slab lies: by the vectors of its cell, however it is turned in space."""

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.workflows.surfaces.slab import vacuum_axes


def normal_axis(atoms: Atoms) -> int:
    """Return the cell vector that leaves the surface, from 0.

    It is the one along which there is vacuum or no periodicity; the third where this
    is no slab, that is, where there are none or several.
    """
    open_axes = vacuum_axes(atoms)
    return open_axes[0] if len(open_axes) == 1 else 2


def surface_normal(atoms: Atoms) -> Float[NDArray[np.float64], " 3"]:
    """Return the unit vector across the surface, on the side of its cell vector."""
    axis = normal_axis(atoms)
    cell = atoms.cell.complete().array
    normal = np.cross(cell[axis - 2], cell[axis - 1])
    normal /= np.linalg.norm(normal)
    return np.asarray(normal * np.sign(normal @ cell[axis]))


def heights(atoms: Atoms) -> Float[NDArray[np.float64], " atom"]:
    """Return how far in Å atoms are along the normal above the widest gap.

    So a slab that the cell boundary cuts in two is whole.
    """
    axis = normal_axis(atoms)
    cell = atoms.cell.complete()
    thickness = abs(float(surface_normal(atoms) @ cell.array[axis]))
    scaled = cell.scaled_positions(atoms.positions)[:, axis]
    if atoms.pbc[axis]:
        scaled = scaled % 1.0
        order = np.sort(scaled)
        gaps = np.diff(order, append=order[0] + 1.0)
        above = order[(int(gaps.argmax()) + 1) % len(order)]
        # round-off may not send the lowest atom to the top
        scaled = (scaled - above + 1e-6) % 1.0
    return np.asarray((scaled - scaled.min()) * thickness)
