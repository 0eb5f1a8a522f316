"""Metals and alloys of a recipe: elements, cell and order drawn within its limits."""

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from ase import Atoms
from numpy.random import Generator

from crack_md.data.augment.adsorbates import add_adsorbates
from crack_md.data.augment.lattice import vegard
from crack_md.data.augment.orders import add_skin, build_crystal, decorate
from crack_md.data.augment.surfaces import (
    SIZES,
    build_bulk,
    build_surface,
    surface_layer_of,
)
from crack_md.data.recipes import Alloys

DRAWS = 200
"""Attempts at a structure within the limits of a recipe."""
UNIT = 4.0
"""Å, lattice constant before the elements are known."""


def draw_metal(
    alloys: Alloys,
    family: str,
    turn: int,
    *,
    lattice_constants: Mapping[str, float],
    seed: int,
    random: Generator,
) -> Atoms | None:
    """Return bare metal or alloy within the limits of a recipe, None if none is.

    Args:
        alloys: The limits, and the shares of orders, cells and layers.
        family: A family of slabs, or bulk.
        turn: Which combination of elements it is; see `_elements`.
        lattice_constants: Å, of the pure fcc metals.
        seed: Shuffles the combinations of elements.
        random: Draws the structure, again and again until it is within the limits.
    """
    for _ in range(DRAWS):
        order = _draw(alloys.orders, random)
        elements = _elements(alloys, order, turn, seed=seed, random=random)
        atoms = _build(alloys, family, order, elements, random)
        if not _is_allowed(alloys, atoms, elements):
            continue
        constant = vegard(list(atoms.symbols), lattice_constants)
        if order in ("skin", "sandwich"):
            # such layers lie on a crystal that imposes its own lattice constant
            host = lattice_constants[elements[0]]
            constant += random.random() * (host - constant)
        scale = constant / UNIT * (1 + random.uniform(-alloys.strain, alloys.strain))
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        if family != "bulk":
            atoms.center(vacuum=alloys.vacuum / 2, axis=2)
        return atoms
    return None


def _build(
    alloys: Alloys,
    family: str,
    order: str,
    elements: tuple[str, ...],
    random: Generator,
) -> Atoms:
    layers = int(random.choice(alloys.layers))
    under_skin = order == "skin" and random.random() < 0.5
    if order in ("L1_2", "L1_0") or under_skin:
        atoms = build_crystal(
            "L1_2" if under_skin else order,
            family,
            elements,
            layers=layers,
            lattice_constant=UNIT,
            vacuum=alloys.vacuum,
            random=random,
        )
    else:
        blank = _blank(alloys, family, layers, random)
        most = {
            symbol: min(int(share * len(blank) + 1e-9), alloys.most_dilute)
            for symbol, share in alloys.largest_share.items()
        }
        atoms = decorate(
            blank, elements, order=order, family=family, most=most, random=random
        )
    return add_skin(atoms, elements[0], family) if order == "skin" else atoms


def _blank(alloys: Alloys, family: str, layers: int, random: Generator) -> Atoms:
    if family == "bulk":
        lattice = _draw(alloys.lattices, random)
        return build_bulk(lattice, UNIT, most_atoms=alloys.most_atoms, random=random)
    cells = {c: w for c, w in alloys.cells.items() if c in SIZES[family]}
    return build_surface(
        family,
        _draw(cells, random),
        layers,
        lattice_constant=UNIT,
        vacuum=alloys.vacuum,
    )


def _is_allowed(alloys: Alloys, atoms: Atoms, elements: tuple[str, ...]) -> bool:
    """Return whether every element occurs, within its share, in a cell small enough."""
    found = Counter(atoms.symbols)
    shares = {symbol: count / len(atoms) for symbol, count in found.items()}
    limits = alloys.largest_share if len(elements) > 1 else {}
    return (
        len(atoms) <= alloys.most_atoms
        and set(found) == set(elements)
        and all(
            shares.get(symbol, 0.0) <= limit + 1e-9 for symbol, limit in limits.items()
        )
    )


def with_adsorbates(
    alloys: Alloys, slab: Atoms, family: str, random: Generator
) -> tuple[Atoms, str]:
    """Return the slab with what the recipe draws for it, and the adsorbate's name."""
    kind = _draw(alloys.adsorbates, random)
    if kind == "clean":
        return slab, "none"
    exposed = np.count_nonzero(surface_layer_of(slab, family) == 0)
    species = kind.split("+")[: 2 if exposed >= 3 else 1]
    for _ in range(20):
        covered = add_adsorbates(slab, species, random=random)
        if covered is not None:
            return covered, "+".join(species)
    return slab, "none"


def _draw(shares: Mapping[Any, float], random: Generator) -> str:
    names = [str(name) for name in shares]
    weights = np.array(list(shares.values()), dtype=float)
    return str(random.choice(names, p=weights / weights.sum()))


def _elements(
    alloys: Alloys, order: str, turn: int, *, seed: int, random: Generator
) -> tuple[str, ...]:
    """Return the elements of one alloy, the host first.

    Combinations take turns in a shuffled order, so all are equally common. Without
    partners either element of a pair may be the host, unless its share is limited.
    """
    elements, partners = alloys.elements, alloys.partners
    everything = tuple(dict.fromkeys((*elements, *partners)))
    if order == "pure" or len(everything) == 1:
        return (elements[_shuffled(len(elements), seed)[turn % len(elements)]],)
    if partners:
        pairs = [(a, b) for a in elements for b in partners if a != b]
    else:
        pairs = list(combinations(elements, 2))
    size = 3 if order == "ternary" and len(everything) > 2 else 2
    if size == 3 and not partners:
        pairs = list(combinations(elements, 3))  # type: ignore[arg-type]
    chosen = list(pairs[_shuffled(len(pairs), seed)[turn % len(pairs)]])
    if size == 3 and partners:
        rest = [symbol for symbol in everything if symbol not in chosen]
        chosen.append(str(random.choice(rest)))
    if not partners:
        chosen = [str(symbol) for symbol in random.permutation(chosen)]
        chosen.sort(key=lambda symbol: symbol in alloys.largest_share)
    return tuple(chosen)


def _shuffled(count: int, seed: int) -> list[int]:
    return np.random.default_rng([seed, count]).permutation(count).tolist()
