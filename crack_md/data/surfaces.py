"""Geometry of training slabs: cells, alloy orders, adsorbates dropped on them."""

from collections.abc import Sequence

import numpy as np
from ase import Atom, Atoms
from ase.build import (
    bulk,
    fcc100,
    fcc111,
    fcc111_root,
    fcc211,
    hcp0001,
    hcp0001_root,
)
from numpy.random import Generator
from numpy.typing import NDArray

CONTACT = {"ontop": 1.82, "bridge": 1.95, "hollow": 2.05, "anywhere": 1.95}
"""Å between O and the metal atoms it touches, typical of 4d and 5d surfaces."""
OH_BOND = 0.98
PROBE = 2.6
"""Å, ball that finds the exposed atoms; it must not slip through a hollow."""
IDEAL_C_OVER_A = np.sqrt(8 / 3)


def build_surface(
    family: str, lattice_constant: float, *, vacuum: float, random: Generator
) -> Atoms:
    """Return a slab of 8-20 copies of one atom; cell shape and depth are drawn.

    Args:
        family: fcc111, fcc100, fcc211 or hcp0001.
        lattice_constant: Å, of the fcc metal; hcp has the same nearest neighbors.
        vacuum: Å between the slab and its image.
        random: Draws the cell.
    """
    neighbor = lattice_constant / np.sqrt(2)
    shape = random.choice(["2x2", "2x2", "2x2", "root", "2x1"])
    layers = int(random.choice([3, 4, 4]))
    size = (2, 2, layers) if shape == "2x2" else (2, 1, layers + 1)
    root = (1, 1, layers + 1)
    if family == "fcc111" and shape == "root":
        slab = fcc111_root("Pt", 3, root, a=lattice_constant)
    elif family == "fcc111":
        slab = fcc111("Pt", size, a=lattice_constant)
    elif family == "fcc100":
        size = (2, 2, layers) if shape != "2x1" else (2, 1, layers + 2)
        slab = fcc100("Pt", size, a=lattice_constant)
    elif family == "fcc211":
        size = (3, 2, 3) if shape == "2x2" else (3, 1, layers)
        slab = fcc211("Pt", size, a=lattice_constant)
    elif shape == "root":
        slab = hcp0001_root("Pt", 3, root, a=neighbor, c=neighbor * IDEAL_C_OVER_A)
    else:
        slab = hcp0001("Pt", size, a=neighbor, c=neighbor * IDEAL_C_OVER_A)
    slab.center(vacuum=vacuum / 2, axis=2)
    return _plain(slab)


def build_bulk(lattice_constant: float, *, random: Generator) -> Atoms:
    """Return a bulk cell of 2-16 copies of one atom, fcc or hcp, shape drawn."""
    neighbor = lattice_constant / np.sqrt(2)
    if random.random() < 0.3:
        cell = bulk("Pt", "hcp", a=neighbor, c=neighbor * IDEAL_C_OVER_A)
        return _plain(
            cell.repeat(
                [(1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2)][random.integers(4)]
            )
        )
    if random.random() < 0.5:
        cell = bulk("Pt", "fcc", a=lattice_constant, cubic=True)
        return _plain(
            cell.repeat([(1, 1, 1), (2, 1, 1), (2, 2, 1)][random.integers(3)])
        )
    cell = bulk("Pt", "fcc", a=lattice_constant)
    return _plain(
        cell.repeat([(2, 1, 1), (2, 2, 1), (3, 2, 1), (2, 2, 2)][random.integers(4)])
    )


def _plain(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)


def layer_of(atoms: Atoms, *, tolerance: float = 0.4) -> NDArray[np.int_]:
    """Return the layer of each atom along z, 0 at the top."""
    order = np.argsort(-atoms.positions[:, 2])
    heights = atoms.positions[order, 2]
    layer = np.concatenate([[0], np.cumsum(-np.diff(heights) > tolerance)])
    result = np.empty(len(atoms), dtype=int)
    result[order] = layer
    return result


def decorate(
    atoms: Atoms, elements: Sequence[str], *, order: str, random: Generator
) -> Atoms:
    """Return the structure with its atoms shared among the elements.

    `random` draws a composition and shuffles; `ordered` draws one of: alternating
    layers, a 1:3 pattern inside layers, a skin, a buried layer, a single foreign atom.
    """
    first, last = elements[0], elements[-1]
    symbols = np.full(len(atoms), first, dtype=object)
    if order == "ordered" and len(elements) == 2:
        layer = layer_of(atoms)
        pattern = random.choice(["layers", "quarter", "skin", "buried", "single"])
        if pattern == "layers":
            symbols[layer % 2 == 0] = last
        elif pattern == "quarter":
            symbols[np.arange(len(atoms)) % 4 == random.integers(4)] = last
        elif pattern == "skin":
            symbols[random.random(len(atoms)) < random.uniform(0.3, 1.0)] = last
            symbols[layer == 0] = first
        elif pattern == "buried":
            symbols[layer == min(1, layer.max())] = last
        else:
            symbols[random.choice(np.flatnonzero(layer == 0))] = last
    elif len(elements) > 1:
        share = random.dirichlet(np.full(len(elements), 1.5))
        symbols = random.choice(np.array(elements, dtype=object), len(atoms), p=share)
        # every element at least once, else the structure is not of this alloy
        present = random.permutation(len(atoms))[: len(elements)]
        symbols[present] = list(elements)[: len(present)]
    decorated = atoms.copy()
    decorated.set_chemical_symbols([str(symbol) for symbol in symbols])
    return decorated


def add_adsorbates(
    slab: Atoms, species: Sequence[str], *, random: Generator
) -> Atoms | None:
    """Return the slab with O or OH dropped on random sites, None if they overlap.

    An adsorbate is lowered at a drawn lateral position until it touches the surface,
    as a ball onto balls; contact distance and lateral offset scatter around the ideal.
    """
    result = slab.copy()
    placed: list[NDArray[np.float64]] = []
    for name in species:
        kind = str(random.choice(list(CONTACT), p=[0.22, 0.2, 0.46, 0.12]))
        contact = CONTACT[kind] + random.normal(0, 0.08)
        if random.random() < 0.1:
            contact += random.uniform(0.3, 1.2)  # on its way down
        lateral = site_above(slab, kind, random=random) + random.normal(0, 0.12, 2)
        oxygen = np.array([*lateral, drop_height(slab, lateral, contact)])
        if any(_distance(result, oxygen, other) < 2.2 for other in placed):
            return None
        placed.append(oxygen)
        result.append(Atom("O", oxygen))
        if name == "OH":
            tilt, turn = random.uniform(0, np.radians(85)), random.uniform(0, 2 * np.pi)
            direction = [np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn)]
            bond = OH_BOND + random.normal(0, 0.02)
            result.append(
                Atom("H", oxygen + bond * np.array([*direction, np.cos(tilt)]))
            )
    return result


def site_above(slab: Atoms, kind: str, *, random: Generator) -> NDArray[np.float64]:
    """Return the lateral position of a random site: ontop, bridge, hollow, anywhere."""
    if kind == "anywhere":
        return (random.random(3) @ slab.cell.array)[:2]
    exposed = _exposed(slab)
    top = exposed[random.choice(_home(exposed, slab))]
    distance = np.linalg.norm(exposed - top, axis=1)
    close = np.argsort(distance)[1:]
    bond = distance[close[0]]
    if kind == "ontop":
        return top[:2]
    near = close[distance[close] < 1.2 * bond]
    other = exposed[random.choice(near)]
    if kind == "bridge":
        return (top[:2] + other[:2]) / 2
    third = [
        k for k in near if 0.5 * bond < np.linalg.norm(exposed[k] - other) < 1.5 * bond
    ]
    if not third:
        return (top[:2] + other[:2]) / 2
    last = exposed[random.choice(third)]
    corners = np.array([top[:2], other[:2], last[:2]])
    # three mutual neighbors span a hollow; a right angle spans a square's half
    right_angle = np.linalg.norm(last - other) > 1.2 * bond
    return (other + last)[:2] / 2 if right_angle else corners.mean(axis=0)


def drop_height(slab: Atoms, lateral: NDArray[np.float64], contact: float) -> float:
    """Return the height in Å at which a ball of radius `contact` rests on the slab."""
    images, heights = _images(slab)
    across = np.linalg.norm(images[:, :2] - lateral, axis=1)
    below = across < contact
    if not below.any():
        return float(heights.max())
    return float((heights[below] + np.sqrt(contact**2 - across[below] ** 2)).max())


def _exposed(slab: Atoms) -> NDArray[np.float64]:
    """Return the images of atoms that carry a ball dropped right above them."""
    bare = [
        drop_height(slab, position[:2], PROBE) < position[2] + PROBE + 1e-6
        for position in slab.positions
    ]
    return _images(slab[bare])[0]


def _images(slab: Atoms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    shifts = np.array([[i, j, 0] for i in range(-2, 3) for j in range(-2, 3)])
    images = (slab.positions + (shifts @ slab.cell.array)[:, np.newaxis]).reshape(-1, 3)
    return images, images[:, 2]


def _home(images: NDArray[np.float64], slab: Atoms) -> NDArray[np.int_]:
    """Return which images lie in the home cell."""
    scaled = np.linalg.solve(slab.cell.array.T, images.T).T[:, :2]
    inside = ((scaled > -1e-6) & (scaled < 1 - 1e-6)).all(axis=1)
    return np.flatnonzero(inside) if inside.any() else np.arange(len(images))


def _distance(
    cell: Atoms, first: NDArray[np.float64], second: NDArray[np.float64]
) -> float:
    pair = Atoms("O2", [first, second], cell=cell.cell, pbc=True)
    return float(pair.get_distance(0, 1, mic=True))
