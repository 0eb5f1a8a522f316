"""Which element sits where: random alloys, L1_2 and L1_0 crystals, skins, sandwiches.

L1_2 is Cu3Au (minority on the corners of the fcc cube), L1_0 is CuAu (elements in
alternating planes along one axis).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.build import surface
from numpy.random import Generator

from crack_md.data.augment.surfaces import layer_of, plain_copy, surface_layer_of

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
