"""Base structures of metals, alloys, molecules and dimers for a recipe.

A structure is a pure function of (recipe, seed, its number): runs in parallel, runs
that were interrupted, and runs with a limit all make the same ones.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule
from numpy.random import Generator

from crack_md.data.adsorbates import add_adsorbates
from crack_md.data.dimers import dimer, dimer_plan
from crack_md.data.lattice import vegard
from crack_md.data.orders import add_skin, build_crystal, decorate
from crack_md.data.recipes import Alloys, Part, Recipe
from crack_md.data.surfaces import (
    SIZES,
    build_bulk,
    build_surface,
    surface_layer_of,
)
from crack_md.errors import ConfigError

BOX = 12.0
"""Å, cell of an isolated molecule."""
DRAWS = 200
"""Attempts at a structure within the limits of a recipe before it is refused."""
UNIT = 4.0
"""Å, lattice constant before the elements are known."""


@dataclass(frozen=True)
class BaseStructure:
    """A structure that frames are made of."""

    atoms: Atoms
    group: str
    surface: str
    """fcc111, …, bulk, molecule or dimer."""
    adsorbate: str
    part: str = ""
    """Part of the recipe that it belongs to."""

    @property
    def is_slab(self) -> bool:
        """Return whether the structure has a surface."""
        return self.surface not in ("bulk", "molecule", "dimer")


@dataclass(frozen=True)
class Entry:
    """One place in the sequence of structures."""

    part: str
    family: str
    """A family of slabs, bulk, a molecule, or dimer."""
    turn: int
    """How many structures of this part and family come before."""


def plan_of(recipe: Recipe) -> list[Entry]:
    """Return the sequence of structures, parts and families mixed evenly.

    Every part of the sequence has the same mixture, so the first tenth of a dataset
    is already a fair sample of it.
    """
    names: list[tuple[str, str]] = []
    for name, part in recipe.all_parts().items():
        if part.generate is not None:
            counts = [*part.generate.counts.items(), *part.generate.molecules.items()]
            names += [(name, family) for family, n in counts for _ in range(n)]
        if part.dimers is not None:
            names += [(name, "dimer")] * len(dimer_plan(part.dimers))
    order = np.random.default_rng(recipe.seed).permutation(len(names))
    turns: Counter[tuple[str, str]] = Counter()
    plan = []
    for index in order:
        part_name, family = names[index]
        plan.append(Entry(part_name, family, turns[names[index]]))
        turns[names[index]] += 1
    return plan


def generate(
    recipe: Recipe, *, lattice_constants: Mapping[str, float]
) -> Iterator[BaseStructure]:
    """Yield the base structures of a recipe; see `plan_of` for their sequence."""
    parts = recipe.all_parts()
    for number, entry in enumerate(plan_of(recipe)):
        random = np.random.default_rng([recipe.seed, number])
        yield _structure(
            parts[entry.part],
            entry,
            number,
            lattice_constants=lattice_constants,
            seed=recipe.seed,
            random=random,
        )


def _structure(
    part: Part,
    entry: Entry,
    number: int,
    *,
    lattice_constants: Mapping[str, float],
    seed: int,
    random: Generator,
) -> BaseStructure:
    if entry.family == "dimer":
        assert part.dimers is not None
        # shuffled once, so that pairs and distances are mixed
        plan = dimer_plan(part.dimers)
        order = np.random.default_rng(seed).permutation(len(plan))
        first, second, step = plan[order[entry.turn]]
        atoms, group, adsorbate = dimer(part.dimers, first, second, step, random)
        return BaseStructure(atoms, group, "dimer", adsorbate, entry.part)
    alloys = part.generate
    assert alloys is not None
    if entry.family in alloys.molecules:
        atoms = molecule(entry.family, cell=[BOX] * 3, pbc=True)
        group = f"{entry.family}-{number:05d}"
        return BaseStructure(atoms, group, "molecule", "none", entry.part)
    atoms = _metal(alloys, entry, lattice_constants, seed=seed, random=random)
    adsorbate = "none"
    if entry.family != "bulk":
        atoms, adsorbate = _with_adsorbates(alloys, atoms, entry.family, random)
    formula = atoms.get_chemical_formula("hill")
    group = f"{entry.family}-{formula}-{number:05d}"
    return BaseStructure(atoms, group, entry.family, adsorbate, entry.part)


def _metal(
    alloys: Alloys,
    entry: Entry,
    lattice_constants: Mapping[str, float],
    *,
    seed: int,
    random: Generator,
) -> Atoms:
    """Return bare metal or alloy within the limits of the recipe, drawn until it is."""
    for _ in range(DRAWS):
        order = _draw(alloys.orders, random)
        elements = _elements(alloys, order, entry.turn, seed=seed, random=random)
        atoms = _build(alloys, entry.family, order, elements, random)
        if not _is_allowed(alloys, atoms, elements):
            continue
        constant = vegard(list(atoms.symbols), lattice_constants)
        if order in ("skin", "sandwich"):
            # such layers lie on a crystal that imposes its own lattice constant
            host = lattice_constants[elements[0]]
            constant += random.random() * (host - constant)
        scale = constant / UNIT * (1 + random.uniform(-alloys.strain, alloys.strain))
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        if entry.family != "bulk":
            atoms.center(vacuum=alloys.vacuum / 2, axis=2)
        return atoms
    raise ConfigError(
        f"part '{entry.part}' of the recipe has no {entry.family} structure of "
        f"{'-'.join(elements)} within its limits ({DRAWS} drawn); raise most_atoms or "
        "largest_share, or add layers"
    )


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
        crystal = build_crystal(
            "L1_2" if under_skin else order,
            family,
            elements,
            layers=layers,
            lattice_constant=UNIT,
            vacuum=alloys.vacuum,
            random=random,
        )
        return add_skin(crystal, elements[0], family) if under_skin else crystal
    if family == "bulk":
        lattice = _draw(alloys.lattices, random)
        blank = build_bulk(lattice, UNIT, most_atoms=alloys.most_atoms, random=random)
    else:
        cells = {c: w for c, w in alloys.cells.items() if c in SIZES[family]}
        blank = build_surface(
            family,
            _draw(cells, random),
            layers,
            lattice_constant=UNIT,
            vacuum=alloys.vacuum,
        )
    most = {
        symbol: min(int(share * len(blank) + 1e-9), alloys.most_dilute)
        for symbol, share in alloys.largest_share.items()
    }
    atoms = decorate(
        blank, elements, order=order, family=family, most=most, random=random
    )
    return add_skin(atoms, elements[0], family) if order == "skin" else atoms


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


def _with_adsorbates(
    alloys: Alloys, slab: Atoms, family: str, random: Generator
) -> tuple[Atoms, str]:
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
