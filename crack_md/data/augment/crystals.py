"""Slabs and bulk cells: which element sits where, and adsorbates on their sites.

L1_2 is Cu3Au (minority on the corners of the fcc cube), L1_0 is CuAu (elements in
alternating planes along one axis).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from ase import Atom, Atoms
from ase.build import (
    bulk,
    fcc100,
    fcc110,
    fcc111,
    fcc111_root,
    fcc211,
    hcp0001,
    hcp0001_root,
    surface,
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


SITES = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
"""Fractional positions of the four atoms of the fcc cube."""
MILLER = {
    "fcc111": (1, 1, 1),
    "fcc100": (1, 0, 0),
    "fcc110": (1, 1, 0),
    "fcc211": (2, 1, 1),
}
REPEATS_OF = {"fcc111": 1.0, "fcc100": 0.5, "fcc110": 0.7, "fcc211": 1.0}
"""Repeats along the normal that one layer asked for stands for."""
WHOLE_LAYER = 0.7
"""Part of the sandwiches whose second layer is one element alone."""


def build_crystal(
    order: str,
    family: str,
    elements: Sequence[str],
    *,
    layers: int,
    lattice_constant: float,
    vacuum: float,
    random: Generator,
) -> Atoms:
    """Return a slab or bulk cell of an ordered A3B (L1_2) or AB (L1_0) crystal.

    Planes of (111) are all alike. Half of the other slabs lose their topmost plane, so
    that every termination occurs.

    Args:
        order: L1_2 or L1_0.
        family: A key of `MILLER`, or bulk.
        elements: A and B.
        layers: Layers of atoms, roughly.
        lattice_constant: Å, of the fcc cube.
        vacuum: Å between the slab and its image.
        random: Draws the axis of L1_0, repeats of bulk cells and the termination.
    """
    symbols = [elements[0]] * 4
    symbols[0] = elements[1]
    if order == "L1_0":
        symbols[int(random.integers(1, 4))] = elements[1]
    cube = Atoms(
        symbols,
        scaled_positions=SITES,
        cell=[lattice_constant] * 3,
        pbc=True,
    )
    if family == "bulk":
        repeats = [(1, 1, 1), (1, 1, 1), (2, 1, 1)][random.integers(3)]
        return plain_copy(cube.repeat(repeats))
    repeats_up = max(2, round(layers * REPEATS_OF[family]))
    slab = surface(cube, MILLER[family], repeats_up, periodic=True)
    if family != "fcc111" and random.random() < 0.5:
        slab = slab[layer_of(slab) > 0]
    slab.center(vacuum=vacuum / 2, axis=2)
    return plain_copy(slab)


def decorate(
    atoms: Atoms,
    elements: Sequence[str],
    *,
    order: str,
    family: str = "fcc111",
    most: Mapping[str, int] | None = None,
    random: Generator,
) -> Atoms:
    """Return the structure with its atoms shared among the elements.

    Args:
        atoms: Copies of one atom.
        elements: The first is the host.
        order: `pure`; `random` and `ternary` draw a composition and shuffle;
            `ordered` draws one of: alternating layers, a 1:3 pattern, a skin, a buried
            layer, a single foreign atom; `sandwich` has the other element in the
            second layer of the host, in most cases alone.
        family: Tells what a layer of the surface is.
        most: Largest number of atoms of dilute elements in random alloys.
        random: Draws all this.
    """
    first, last = elements[0], elements[-1]
    symbols = np.full(len(atoms), first, dtype=object)
    if order == "sandwich":
        layer = surface_layer_of(atoms, family) == 1
        if random.random() > WHOLE_LAYER:
            layer &= random.random(len(atoms)) < 0.5
        symbols[layer] = last
    elif order == "ordered" and len(elements) == 2:
        symbols = _pattern(atoms, first, last, random)
    elif len(elements) > 1:
        symbols = _mixture(len(atoms), elements, most or {}, random)
    decorated = atoms.copy()
    decorated.set_chemical_symbols([str(symbol) for symbol in symbols])
    return decorated


def add_skin(slab: Atoms, element: str, family: str) -> Atoms:
    """Return the slab with its topmost layer made of one element."""
    skinned = slab.copy()
    symbols = np.array(skinned.get_chemical_symbols(), dtype=object)
    symbols[surface_layer_of(slab, family) == 0] = element
    skinned.set_chemical_symbols([str(symbol) for symbol in symbols])
    return skinned


def _pattern(atoms: Atoms, first: str, last: str, random: Generator) -> np.ndarray:
    symbols = np.full(len(atoms), first, dtype=object)
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
    return symbols


def _mixture(
    count: int, elements: Sequence[str], most: Mapping[str, int], random: Generator
) -> np.ndarray:
    """Return a random composition, shuffled, dilute elements within their limits."""
    dilute = [symbol for symbol in elements if symbol in most]
    rest = np.array([symbol for symbol in elements if symbol not in most], dtype=object)
    share = random.dirichlet(np.full(len(rest), 1.5))
    symbols = random.choice(rest, count, p=share)
    # every element at least once, else the structure is not of this alloy
    present = list(rest)
    for symbol in dilute:
        present += [symbol] * int(random.integers(1, max(most[symbol], 1) + 1))
    places = random.permutation(count)[: len(present)]
    symbols[places] = present[: len(places)]
    return symbols


CONTACT = {"ontop": 1.82, "bridge": 1.95, "hollow": 2.05, "anywhere": 1.95}
"""Å between O and the metal atoms it touches, typical of 4d and 5d surfaces."""
H_CONTACT = -0.22
"""Å by which H comes closer to metal atoms than O."""
OH_BOND = 0.98
PROBE = 2.6
"""Å, ball that finds the exposed atoms; it must not slip through a hollow."""


def add_adsorbates(
    slab: Atoms, species: Sequence[str], *, random: Generator
) -> Atoms | None:
    """Return the slab with O, OH or H dropped on random sites, None if they overlap.

    An adsorbate is lowered at a drawn lateral position until it touches the surface,
    as a ball onto balls; contact distance and lateral offset scatter around the ideal.
    """
    result = slab.copy()
    placed: list[NDArray[np.float64]] = []
    for name in species:
        kind = str(random.choice(list(CONTACT), p=[0.22, 0.2, 0.46, 0.12]))
        contact = CONTACT[kind] + random.normal(0, 0.08)
        contact += H_CONTACT if name == "H" else 0.0
        if random.random() < 0.1:
            contact += random.uniform(0.3, 1.2)  # on its way down
        lateral = site_above(slab, kind, random=random) + random.normal(0, 0.12, 2)
        lowest = np.array([*lateral, drop_height(slab, lateral, contact)])
        if any(_distance(result, lowest, other) < 2.2 for other in placed):
            return None
        placed.append(lowest)
        result.append(Atom(name[0], lowest))
        if name == "OH":
            tilt, turn = random.uniform(0, np.radians(85)), random.uniform(0, 2 * np.pi)
            direction = [np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn)]
            bond = OH_BOND + random.normal(0, 0.02)
            result.append(
                Atom("H", lowest + bond * np.array([*direction, np.cos(tilt)]))
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
