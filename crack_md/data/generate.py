"""Base structures of metals, alloys and molecules for a recipe.

A structure is a pure function of (recipe, seed, its number): runs in parallel, runs
that were interrupted, and runs with a limit all make the same ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from numpy.random import Generator

from crack_md.data.recipes import Alloys
from crack_md.data.surfaces import add_adsorbates, build_bulk, build_surface, decorate
from crack_md.errors import TeacherError
from crack_md.models.teachers.base import Teacher

BOX = 12.0
"""Å, cell of an isolated molecule."""


@dataclass(frozen=True)
class BaseStructure:
    """A structure that frames are made of."""

    atoms: Atoms
    group: str
    surface: str
    """fcc111, …, bulk or molecule."""
    adsorbate: str

    @property
    def is_slab(self) -> bool:
        """Return whether the structure has a surface."""
        return self.surface not in ("bulk", "molecule")


def generate(
    alloys: Alloys, *, lattice_constants: dict[str, float], seed: int
) -> Iterator[BaseStructure]:
    """Yield the base structures of a recipe, families mixed evenly.

    Every part of the sequence has the same mixture, so the first tenth of a dataset
    is already a fair sample of it.
    """
    counts: list[tuple[str, int]] = [
        *alloys.counts.items(),
        *alloys.molecules.items(),
    ]
    plan = [name for name, count in counts for _ in range(count)]
    np.random.default_rng(seed).shuffle(plan)
    for number, family in enumerate(plan):
        random = np.random.default_rng([seed, number])
        if family in alloys.molecules:
            atoms = molecule(family, cell=[BOX] * 3, pbc=True)
            yield BaseStructure(atoms, f"{family}-{number:05d}", "molecule", "none")
        else:
            yield _metal(alloys, family, lattice_constants, number, random=random)


def _metal(
    alloys: Alloys,
    family: str,
    lattice_constants: dict[str, float],
    number: int,
    *,
    random: Generator,
) -> BaseStructure:
    order = _draw(alloys.orders, random)
    elements = _draw_elements(alloys.elements, order, number, random)
    blank = build_bulk(4.0, random=random) if family == "bulk" else build_surface(
        family, 4.0, vacuum=alloys.vacuum, random=random
    )  # fmt: skip
    atoms = decorate(blank, elements, order=order, random=random)
    # Vegard: the mean of the pure metals' lattice constants
    vegard = np.mean([lattice_constants[symbol] for symbol in atoms.symbols])
    scale = vegard / 4.0 * (1 + random.uniform(-alloys.strain, alloys.strain))
    atoms.set_cell(atoms.cell * scale, scale_atoms=True)
    adsorbate = "none"
    if family != "bulk":
        atoms.center(vacuum=alloys.vacuum / 2, axis=2)
        atoms, adsorbate = _with_adsorbates(alloys, atoms, random)
    formula = atoms.get_chemical_formula("hill")
    return BaseStructure(atoms, f"{family}-{formula}-{number:05d}", family, adsorbate)


def _with_adsorbates(
    alloys: Alloys, slab: Atoms, random: Generator
) -> tuple[Atoms, str]:
    kind = _draw(alloys.adsorbates, random)
    if kind == "clean":
        return slab, "none"
    sites = len(slab) // 4  # an atom of a 2x2 layer per adsorbate is a monolayer
    species = [kind]
    if sites >= 3 and random.random() < 0.25:
        species.append(str(random.choice(["O", "OH"])))
    for _ in range(20):
        covered = add_adsorbates(slab, species, random=random)
        if covered is not None:
            return covered, "+".join(species)
    return slab, "none"


def _draw(shares: Mapping[Any, float], random: Generator) -> str:
    names = [str(name) for name in shares]
    weights = np.array(list(shares.values()), dtype=float)
    return str(random.choice(names, p=weights / weights.sum()))


def _draw_elements(
    elements: tuple[str, ...], order: str, number: int, random: Generator
) -> tuple[str, ...]:
    """Return the elements of one alloy; pairs take turns, so all are equally common."""
    if order == "pure" or len(elements) == 1:
        return (str(random.choice(elements)),)
    pairs = list(combinations(elements, 2))
    # 7 shares no factor with 45 pairs of ten elements and spreads neighbors apart
    pair = pairs[(7 * number) % len(pairs)]
    if order == "ternary" and len(elements) > 2:
        rest = [symbol for symbol in elements if symbol not in pair]
        return (*pair, str(random.choice(rest)))
    return pair if random.random() < 0.5 else pair[::-1]


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
        "generate.lattice_constants in the recipe"
    )
