"""How far atoms can have moved apart since a list of neighbors was made.

A pair whose vector was v is v·F + u_j − u_i now, where F is the deformation of the
cell and u what remains of each displacement. With the singular values σ of F,

    σ_min |v| − s ≤ |v·F + u_j − u_i| ≤ σ_max |v| + s,

s being the sum of the two largest |u|: an atom and its own images move as one.
"""

from typing import NamedTuple

import ase
import numpy as np
from jaxtyping import Float


class Lattice(NamedTuple):
    """The periodic cell vectors, and what takes a position to multiples of them."""

    vectors: Float[np.ndarray, "periodic 3"]
    inverse: Float[np.ndarray, "3 periodic"]


class Motion(NamedTuple):
    """Bounds on what happened to the distances between atoms."""

    hops: Float[np.ndarray, "atom periodic"]
    """Whole cell vectors by which atoms were moved: wrapping is no displacement."""
    spread: float
    """Most that two atoms can have moved against each other, but for the cell, in Å."""
    shrink: float
    stretch: float
    """Smallest and largest factor of the deformation on any length."""


def lattice_of(atoms: ase.Atoms, like: Lattice | None = None) -> Lattice:
    """Return the lattice of a structure: `like` itself if the vectors are the same."""
    vectors = atoms.cell.array[atoms.pbc]
    if like is not None and np.array_equal(vectors, like.vectors):
        return like
    return Lattice(vectors, np.linalg.pinv(vectors))


def motion_between(
    before: Float[np.ndarray, "atom 3"],
    now: Float[np.ndarray, "atom 3"],
    old: Lattice,
    new: Lattice,
) -> Motion:
    """Return what happened since atoms were at positions `before` in lattice `old`."""
    shrink, stretch = 1.0, 1.0
    if old is not new:
        deformation = np.eye(3) + old.inverse @ (new.vectors - old.vectors)
        factors = np.linalg.svd(deformation, compute_uv=False)
        shrink, stretch = float(factors[-1]), float(factors[0])
        before = before @ deformation
    change = now - before
    hops = np.rint(change @ new.inverse)
    if hops.any():
        change -= hops @ new.vectors
    change -= change.mean(axis=0)  # a drift moves no atom against another
    squares = np.einsum("ij,ij->i", change, change)
    farthest = np.partition(squares, -2)[-2:] if len(squares) > 1 else np.zeros(1)
    return Motion(hops, float(np.sqrt(farthest).sum()), shrink, stretch)
