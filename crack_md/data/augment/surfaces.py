"""Slabs and bulk cells of one metal, as drawn for training."""

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import (
    bulk,
    fcc100,
    fcc110,
    fcc111,
    fcc111_root,
    fcc211,
    hcp0001,
    hcp0001_root,
)
from numpy.random import Generator
from numpy.typing import NDArray

IDEAL_C_OVER_A = np.sqrt(8 / 3)
OPEN_LAYERS = 2
"""Layers that a (110) slab has more than asked for: they lie closer together."""
SIZES: dict[str, dict[str, tuple[int, int]]] = {
    "fcc111": {"1x1": (1, 1), "2x1": (2, 1), "root3": (1, 1), "2x2": (2, 2)},
    "fcc100": {"1x1": (1, 1), "2x1": (2, 1), "root2": (1, 1), "2x2": (2, 2)},
    # twice along the close-packed row
    "fcc110": {"1x1": (1, 1), "2x1": (1, 2), "2x2": (2, 2)},
    # three rows of atoms make the terrace of (211)
    "fcc211": {"1x1": (3, 1), "2x1": (3, 2)},
    "hcp0001": {"1x1": (1, 1), "2x1": (2, 1), "root3": (1, 1), "2x2": (2, 2)},
}
"""Surface cells of each family, in repeats of ase.build."""
BULK_REPEATS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "fcc": ((2, 1, 1), (2, 2, 1), (3, 2, 1), (2, 2, 2)),
    "hcp": ((1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2)),
    "bcc": ((2, 1, 1), (2, 2, 1), (3, 2, 1), (2, 2, 2)),
}
LAYERS_PER_TERRACE = 3
"""Rows of (211) at different heights that together form its surface."""


def build_surface(
    family: str, cell: str, layers: int, *, lattice_constant: float, vacuum: float
) -> Atoms:
    """Return a slab of copies of one atom.

    Args:
        family: fcc111, fcc100, fcc110, fcc211 or hcp0001.
        cell: One of `SIZES[family]`.
        layers: Layers of atoms, terraces of (211); (110) has two more.
        lattice_constant: Å, of the fcc metal; hcp has the same nearest neighbors.
        vacuum: Å between the slab and its image.
    """
    size = (*SIZES[family][cell], layers)
    neighbor = lattice_constant / np.sqrt(2)
    hexagonal = {"a": neighbor, "c": neighbor * IDEAL_C_OVER_A}
    build: dict[tuple[str, str], Callable[[], Atoms]] = {
        ("fcc111", "root3"): lambda: fcc111_root("Pt", 3, size, a=lattice_constant),
        ("hcp0001", "root3"): lambda: hcp0001_root("Pt", 3, size, **hexagonal),
        ("fcc100", "root2"): lambda: _centered(fcc100("Pt", size, a=lattice_constant)),
    }
    plain: dict[str, Callable[[], Atoms]] = {
        "fcc111": lambda: fcc111("Pt", size, a=lattice_constant),
        "fcc100": lambda: fcc100("Pt", size, a=lattice_constant),
        "fcc110": lambda: fcc110(
            "Pt", (*size[:2], layers + OPEN_LAYERS), a=lattice_constant
        ),
        "fcc211": lambda: fcc211("Pt", size, a=lattice_constant),
        "hcp0001": lambda: hcp0001("Pt", size, **hexagonal),
    }
    slab = build.get((family, cell), plain[family])()
    slab.center(vacuum=vacuum / 2, axis=2)
    return plain_copy(slab)


def _centered(slab: Atoms) -> Atoms:
    """Return the c(2x2) cell of a (100) slab of one atom per layer."""
    a, b, c = slab.cell.array
    wide = slab.repeat((2, 2, 1))
    wide.set_cell([a + b, b - a, c])
    scaled = wide.get_scaled_positions(wrap=False)
    scaled[:, :2] = np.mod(scaled[:, :2] + 1e-9, 1.0) - 1e-9
    _, first = np.unique(np.round(scaled, 6), axis=0, return_index=True)
    wide.set_scaled_positions(scaled)
    kept = wide[np.sort(first)]
    kept.rotate(a + b, "x", rotate_cell=True)
    return kept


def build_bulk(
    lattice: str, lattice_constant: float, *, most_atoms: int, random: Generator
) -> Atoms:
    """Return a bulk cell of 2 to `most_atoms` copies of one atom, its shape drawn.

    Args:
        lattice: fcc, hcp or bcc.
        lattice_constant: Å, of the fcc metal; hcp has the same nearest neighbors, bcc
            the same volume of an atom.
        most_atoms: Larger cells are not drawn.
        random: Draws the shape.
    """
    neighbor = lattice_constant / np.sqrt(2)
    if lattice == "hcp":
        cells = [bulk("Pt", "hcp", a=neighbor, c=neighbor * IDEAL_C_OVER_A)]
    else:
        a = lattice_constant if lattice == "fcc" else lattice_constant / 2 ** (1 / 3)
        cells = [bulk("Pt", lattice, a=a), bulk("Pt", lattice, a=a, cubic=True)]
    shapes = [
        cell.repeat(repeats)
        for cell in cells
        for repeats in ((1, 1, 1), *BULK_REPEATS[lattice])
    ]
    shapes = [cell for cell in shapes if 2 <= len(cell) <= max(most_atoms, 2)]
    return plain_copy(shapes[random.integers(len(shapes))])


def plain_copy(atoms: Atoms) -> Atoms:
    """Return numbers, positions and cell alone, periodic in all directions."""
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)


def layer_of(atoms: Atoms, *, tolerance: float = 0.4) -> NDArray[np.int_]:
    """Return the layer of each atom along z, 0 at the top."""
    order = np.argsort(-atoms.positions[:, 2])
    heights = atoms.positions[order, 2]
    layer = np.concatenate([[0], np.cumsum(-np.diff(heights) > tolerance)])
    result = np.empty(len(atoms), dtype=int)
    result[order] = layer
    return result


def surface_layer_of(atoms: Atoms, family: str) -> NDArray[np.int_]:
    """Return the layer of each atom, the rows of a (211) terrace taken together."""
    layer = layer_of(atoms)
    return layer // LAYERS_PER_TERRACE if family == "fcc211" else layer
