"""Base structures of metals, alloys, molecules and dimers for a recipe.

A structure is a pure function of (recipe, seed, its number): runs in parallel, runs
that were interrupted, and runs with a limit all make the same ones.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import molecule
from numpy.random import Generator

from crack_md.data.augment.alloys import draw_metal, with_adsorbates
from crack_md.data.augment.dimers import dimer, dimer_plan
from crack_md.data.recipes import Part, Recipe
from crack_md.errors import ConfigError

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
