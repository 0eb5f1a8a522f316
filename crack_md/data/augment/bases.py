"""Base structures of metals, alloys, molecules and dimers for a recipe.

A structure is a pure function of (recipe, seed, its number): runs in parallel, runs
that were interrupted, and runs with a limit all make the same ones.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from numpy.random import Generator

from crack_md.data.augment.crystals import (
    SIZES,
    add_adsorbates,
    add_skin,
    build_bulk,
    build_crystal,
    build_surface,
    decorate,
    surface_layer_of,
)
from crack_md.data.augment.recipe import Alloys, Dimers, Part, Recipe
from crack_md.errors import ConfigError, TeacherError
from crack_md.models.teachers.base import Teacher


def vegard(symbols: Sequence[str], lattice_constants: Mapping[str, float]) -> float:
    """Return the mean of the pure metals' lattice constants in Å."""
    return float(np.mean([lattice_constants[symbol] for symbol in symbols]))


def teacher_lattice_constants(
    elements: tuple[str, ...], teacher: Teacher
) -> dict[str, float]:
    """Return the fcc lattice constants in Å at which the teacher's energy is lowest."""
    return {symbol: _fcc_minimum(symbol, teacher) for symbol in elements}


def _fcc_minimum(symbol: str, teacher: Teacher) -> float:
    def energy(lattice_constant: float) -> float:
        cell = bulk(symbol, "fcc", a=lattice_constant)
        return teacher.predict([cell])[0].energy

    center, step = 3.9, 0.15
    for _ in range(12):
        below, here, above = (energy(center + shift) for shift in (-step, 0.0, step))
        curvature = below - 2 * here + above
        if curvature <= 0 or min(below, above) < here:
            center += step if above < below else -step
            continue
        center += 0.5 * step * (below - above) / curvature
        step /= 4
        if step < 0.005:
            return round(center, 4)
    raise TeacherError(
        f"the teacher {teacher.name} has no fcc minimum of {symbol} near 3.9 Å; give "
        "lattice_constants in the recipe"
    )


DIMER_BOX = 10.0
"""Å; at 4 Å the next image is 6 Å away."""
ADSORBATES = ("O", "H")


def dimer_plan(dimers: Dimers) -> list[tuple[str, str, int]]:
    """Return (first element, second element, which distance) of all dimers."""
    metals = combinations_with_replacement(dimers.elements, 2)
    plan = [(a, b, step) for a, b in metals for step in range(dimers.per_pair)]
    return plan + [
        (light, metal, step)
        for light in ADSORBATES
        for metal in dimers.elements
        for step in range(dimers.per_adsorbate_pair)
    ]


def dimer(
    dimers: Dimers, first: str, second: str, step: int, random: Generator
) -> tuple[Atoms, str, str]:
    """Return a pair of atoms in a periodic box, its group and its adsorbate.

    Distances are log-uniform, one in each of equal intervals; all of a pair share a
    group, so that none of its distances tests what the others trained.
    """
    light = first in ADSORBATES
    steps = dimers.per_adsorbate_pair if light else dimers.per_pair
    part = (step + random.random()) / steps
    distance = dimers.nearest * (dimers.farthest / dimers.nearest) ** part
    direction = random.normal(size=3)
    direction *= distance / np.linalg.norm(direction)
    atoms = Atoms(
        [first, second], [np.zeros(3), direction], cell=[DIMER_BOX] * 3, pbc=True
    )
    atoms.center()
    return atoms, f"dimer-{first}-{second}", first if light else "none"


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


BOX = 12.0
"""Å, cell of an isolated molecule."""


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
class PlanEntry:
    """One place in the sequence of structures."""

    part: str
    family: str
    """A family of slabs, bulk, a molecule, or dimer."""
    turn: int
    """How many structures of this part and family come before."""


def plan_of(recipe: Recipe) -> list[PlanEntry]:
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
        plan.append(PlanEntry(part_name, family, turns[names[index]]))
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
    entry: PlanEntry,
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
    drawn = draw_metal(
        alloys,
        entry.family,
        entry.turn,
        lattice_constants=lattice_constants,
        seed=seed,
        random=random,
    )
    if drawn is None:
        raise ConfigError(
            f"part '{entry.part}' of the recipe has no {entry.family} structure within "
            "its limits; raise most_atoms or largest_share, or add layers"
        )
    atoms, adsorbate = drawn, "none"
    if entry.family != "bulk":
        atoms, adsorbate = with_adsorbates(alloys, drawn, entry.family, random)
    formula = atoms.get_chemical_formula("hill")
    group = f"{entry.family}-{formula}-{number:05d}"
    return BaseStructure(atoms, group, entry.family, adsorbate, entry.part)
