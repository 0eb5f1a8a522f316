"""Pairs of atoms in an empty box, from contact to where they part."""

from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from numpy.random import Generator

from crack_md.data.recipes import Dimers

BOX = 10.0
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
    atoms = Atoms([first, second], [np.zeros(3), direction], cell=[BOX] * 3, pbc=True)
    atoms.center()
    return atoms, f"dimer-{first}-{second}", first if light else "none"
