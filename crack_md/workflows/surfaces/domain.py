"""Whether a relaxed structure is one that the model can know.

Workflows take any function from a structure to a distance, in units of a limit, and a
sentence that says why. Models that were saved with statistics of their training
features have one of their own; for all others distances between neighbors decide, which
finds what is broken but not what is merely unusual.
"""

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

DomainDistance = Callable[[Atoms], tuple[float, str]]
"""Beyond 1 is out of the domain."""

NEAREST = 0.75
"""Times the covalent radii: no atoms are nearer; N2, the shortest bond, has 0.77."""
FARTHEST = 1.5
"""Times the covalent radii: the nearest neighbor of an atom is no farther."""


def neighbor_distance(atoms: Atoms) -> tuple[float, str]:
    """Return how far the worst neighbor distance is from what bonds allow.

    With r the distance of an atom's nearest neighbor over the sum of their covalent
    radii, the larger of 0.75/r and r/1.5, for the worst atom. Above 1 two atoms have
    fallen into one another, or an atom is alone.
    """
    ratios = nearest_ratios(atoms)
    with np.errstate(divide="ignore"):
        distances = np.maximum(NEAREST / ratios, ratios / FARTHEST)
    worst = int(distances.argmax())
    name = f"{atoms.symbols[worst]} (atom {worst})"
    if ratios[worst] < 1.0:
        how = f"a neighbor at {ratios[worst]:.2f} times the covalent radii"
    elif np.isinf(ratios[worst]):
        how = f"no neighbor within {2 * FARTHEST:g} times the covalent radii"
    else:
        how = f"no neighbor nearer than {ratios[worst]:.2f} times the covalent radii"
    return float(distances[worst]), f"{name} has {how}"


def nearest_ratios(atoms: Atoms) -> np.ndarray:
    """Return for every atom the smallest distance over the sum of covalent radii."""
    radii = covalent_radii[atoms.numbers]
    first, second, distance = neighbor_list("ijd", atoms, 2 * FARTHEST * radii)
    ratios = np.full(len(atoms), np.inf)
    np.minimum.at(ratios, first, distance / (radii[first] + radii[second]))
    return ratios
