"""Symmetry of crystals and slabs as they are: spglib's operations, nothing averaged."""

import warnings
from itertools import product
from typing import NamedTuple

import numpy as np
import spglib
from ase import Atoms
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Operations(NamedTuple):
    """Operations x → W x + w on fractions of the cell vectors."""

    rotations: NDArray[np.int_]
    """(operation, 3, 3)."""
    translations: Array
    """(operation, 3)."""


def operations(
    cell: Array, scaled: Array, kinds: NDArray[np.int_], *, tolerance_A: float
) -> Operations:
    """Return the symmetry operations; the identity alone where spglib finds none.

    Args:
        cell: rows in Å.
        scaled: (atom, 3) fractions.
        kinds: (atom) which atoms are alike.
        tolerance_A: atoms farther than this from their image are not symmetric.
    """
    with warnings.catch_warnings():
        # spglib 2.7 announces exceptions instead of None: both are handled here.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            found = spglib.get_symmetry(
                (cell.tolist(), scaled.tolist(), kinds.tolist()), symprec=tolerance_A
            )
        except spglib.SpglibError:
            found = None
    if found is None:
        return Operations(np.eye(3, dtype=int)[None], np.zeros((1, 3)))
    return Operations(found["rotations"], found["translations"])


def kinds_of(atoms: Atoms) -> NDArray[np.int_]:
    """Return a number per atom that tells element and initial magnetic moment."""
    described = np.column_stack(
        [atoms.numbers, np.round(atoms.get_initial_magnetic_moments(), 3)]
    )
    return np.asarray(np.unique(described, axis=0, return_inverse=True)[1]).reshape(-1)


def pure_translations(found: Operations) -> Array:
    """Return the (translation, 3) fractions by which the atoms repeat in the cell."""
    identity = (found.rotations == np.eye(3, dtype=int)).all(axis=(1, 2))
    translations = found.translations[identity] % 1.0
    count = len(translations)
    # Every one is a multiple of 1/count: exact again after the tolerance of the search.
    return np.asarray(np.round(translations * count) / count % 1.0)


def primitive_vectors(cell: Array, translations: Array) -> Array:
    """Return the shortest vectors that translations and cell vectors span, in Å.

    Args:
        cell: (vector, 3) two or three vectors.
        translations: (translation, vector) fractions of these.
    """
    size = len(cell)
    shifts = np.array(list(product((-1, 0, 1), repeat=size)))
    fractions = (translations[:, None] + shifts).reshape(-1, size)
    fractions = fractions[np.abs(fractions).max(axis=1) > 1e-9]
    lengths = np.linalg.norm(fractions @ cell, axis=1)
    order = np.lexsort((*-fractions.T[::-1].round(6), lengths.round(6)))
    chosen: list[Array] = []
    for candidate in fractions[order]:
        if np.linalg.matrix_rank(np.array([*chosen, candidate]), tol=1e-6) > len(
            chosen
        ):
            chosen.append(candidate)
        if len(chosen) == size:
            break
    basis = np.array(chosen)
    volume = abs(np.linalg.det(basis)) * len(translations)
    if abs(volume - 1) > 1e-3:  # a very oblique cell: leave it as it is
        return cell
    if np.linalg.det(basis) < 0:
        basis[-1] = -basis[-1]
    return np.asarray(basis @ cell)


def primitive_cell(atoms: Atoms, *, tolerance_A: float = 1e-3) -> Atoms:
    """Return the smallest cell that the crystal repeats, its atoms where they are."""
    cell, kinds = atoms.cell.array, kinds_of(atoms)
    found = operations(
        cell, atoms.get_scaled_positions(), kinds, tolerance_A=tolerance_A
    )
    vectors = primitive_vectors(cell, pure_translations(found))
    kept = _first_of_each(atoms.positions, kinds, vectors, 10 * tolerance_A)
    if len(kept) * round(abs(np.linalg.det(cell) / np.linalg.det(vectors))) != len(
        atoms
    ):
        return atoms
    primitive = atoms[kept]
    primitive.set_cell(vectors)
    return primitive


def _first_of_each(
    positions: Array, kinds: NDArray[np.int_], vectors: Array, near_A: float
) -> list[int]:
    """Return one atom of every set that lattice vectors map on each other."""
    scaled = np.linalg.solve(vectors.T, positions.T).T
    kept: list[int] = []
    for index in range(len(positions)):
        apart = scaled[kept] - scaled[index]
        apart = (apart - np.round(apart)) @ vectors
        same = kinds[kept] == kinds[index]
        if not (same & (np.linalg.norm(apart, axis=1) < near_A)).any():
            kept.append(index)
    return kept


SLAB_TOLERANCE_A = 0.01
"""More than the rounding of files, less than what tells sites of alloys apart."""


class SurfaceSymmetry(NamedTuple):
    """The operations of a slab that leave its upper side up.

    They are those of the smallest cell that the surface repeats, so that they do not
    depend on the supercell at hand.
    """

    vectors: Array
    """(2, 2) x and y in Å of the primitive surface vectors."""
    rotations: Array
    """(operation, 2, 2) on fractions of these."""
    translations: Array
    """(operation, 2)."""
    repeats: Array
    """(cell, 2) x and y in Å of the primitive cells that fill the cell at hand."""

    def images(self, lateral: Array) -> Array:
        """Return the (operation, 2) fractions of the images of a place in Å."""
        scaled = np.linalg.solve(self.vectors.T, lateral)
        return np.asarray((self.rotations @ scaled + self.translations) % 1.0)

    def apart(self, fractions: Array, others: Array) -> Array:
        """Return the (n, m) distances in Å, the nearest images of both."""
        steps = fractions[:, None] - others[None]
        steps -= np.round(steps)
        around = np.array(list(product((-1, 0, 1), repeat=2)))
        nearest = (steps[:, :, None] + around) @ self.vectors
        return np.asarray(np.linalg.norm(nearest, axis=-1).min(axis=-1))


def surface_symmetry(atoms: Atoms) -> SurfaceSymmetry:
    """Return the symmetry of a slab whose normal is along z."""
    cell = flat_cell(atoms)
    kinds = np.asarray(atoms.numbers)
    scaled = np.linalg.solve(cell.T, atoms.positions.T).T
    found = operations(cell, scaled, kinds, tolerance_A=SLAB_TOLERANCE_A)
    shifts = pure_translations(found)[:, :2]
    vectors = np.array([*primitive_vectors(cell[:2], shifts), cell[2]])
    kept = _first_of_each(atoms.positions, kinds, vectors, 10 * SLAB_TOLERANCE_A)
    if len(kept) * len(shifts) != len(atoms):
        vectors, kept, shifts = cell, list(range(len(atoms))), np.zeros((1, 2))
    scaled = np.linalg.solve(vectors.T, atoms.positions[kept].T).T
    found = operations(vectors, scaled, kinds[kept], tolerance_A=SLAB_TOLERANCE_A)
    rotations = found.rotations
    up = (
        (rotations[:, 2, 2] == 1)
        & ~rotations[:, 2, :2].any(axis=1)
        & ~rotations[:, :2, 2].any(axis=1)
    )
    return SurfaceSymmetry(
        vectors[:2, :2],
        rotations[up][:, :2, :2].astype(float),
        found.translations[up][:, :2],
        (shifts @ cell[:2])[:, :2],
    )


def flat_cell(atoms: Atoms) -> Array:
    """Return the cell with its third vector along the normal."""
    cell: Array = atoms.cell.array.copy()
    cell[2, :2] = 0.0  # a lean of c matters in the vacuum only
    return cell
