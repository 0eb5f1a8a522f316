"""Which atoms of a structure are adsorbates already, found by their bonds.

Heights do not tell: oxygen in the trough of a step lies below the terrace, and that on
the back side below everything. Bonds do. Non-metal atoms that hold together are one
species. It is adsorbed where its bonds to metals leave a wide cone free, and a part of
the bulk where metal surrounds it. Of an element that the bulk holds, as oxides and
carbides do, species at the surface are its termination.
"""

from functools import cache

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

NONMETALS = frozenset(["H", "C", "N", "O", "F", "P", "S", "Cl", "Se", "Br", "I"])
BONDED = 1.25
"""Times the covalent radii; two O* side by side on a metal are 1.9 radii apart."""
OPEN_COSINE = 0.2
"""Bonds leave a cone of 78 degrees or more free: 54 in an octahedral hole, 70 in a
tetrahedral one, 87 for O in the trough of a step, 98 for N in the hollows of Fe(100),
126 and more on close-packed metals."""
N_DIRECTIONS = 1000
FLAT_A = 0.4
SAME_PLACE_A = 1e-3


def adsorbed_atoms(atoms: Atoms) -> NDArray[np.bool_]:
    """Return a mask of the atoms that sit on a surface instead of belonging to it.

    Non-metal sheets that run through the cell, such as graphene with metals in it, are
    the material itself, unless there is a metal film that they lie on.

    Args:
        atoms: an upright slab, periodic along its first two vectors at least.
    """
    nonmetal = np.isin(np.array(atoms.symbols), sorted(NONMETALS))
    adsorbed = np.zeros(len(atoms), dtype=bool)
    if nonmetal.all() or not nonmetal.any():
        return adsorbed
    reach = BONDED * covalent_radii[atoms.numbers]
    first, second, vectors = neighbor_list("ijD", atoms, reach)
    species, runs_on = _species(atoms, nonmetal, first, second, vectors)
    _, film_runs_on = _species(atoms, ~nonmetal, first, second, vectors)
    sheet = [one and not any(film_runs_on) for one in runs_on]
    to_metal = ~nonmetal[second]
    outside = [
        members
        for members, is_sheet in zip(species, sheet, strict=True)
        if not is_sheet and _is_open(vectors[np.isin(first, members) & to_metal])
    ]
    inside = nonmetal.copy()
    for members in outside:
        inside[members] = False
    if any(sheet):
        own = set(atoms.numbers[inside].tolist())
    else:
        own = _bulk_elements(atoms, inside, outside, n_metal=int((~nonmetal).sum()))
    for members in outside:
        adsorbed[members] = not set(atoms.numbers[members]) <= own
    return adsorbed


def _species(
    atoms: Atoms,
    chosen: NDArray[np.bool_],
    first: NDArray[np.int_],
    second: NDArray[np.int_],
    vectors: NDArray[np.float64],
) -> tuple[list[NDArray[np.int_]], list[bool]]:
    """Return the bonded groups of the chosen atoms, and which of them have no end.

    A group has no end where a path of bonds leads from an atom to an image of itself.
    """
    bonds: dict[int, list[tuple[int, NDArray[np.float64]]]] = {}
    for i, j, vector in zip(first, second, vectors, strict=True):
        if chosen[i] and chosen[j]:
            bonds.setdefault(int(i), []).append((int(j), vector))
    place: dict[int, NDArray[np.float64]] = {}
    groups, endless = [], []
    for start in np.flatnonzero(chosen).tolist():
        if start in place:
            continue
        place[start] = np.zeros(3)
        members, runs_on = [start], False
        for here in members:  # grows while it is walked
            for other, vector in bonds.get(here, ()):
                there = place[here] + vector
                if other not in place:
                    place[other] = there
                    members.append(other)
                runs_on |= bool(np.linalg.norm(there - place[other]) > SAME_PLACE_A)
        groups.append(np.array(members))
        endless.append(runs_on)
    return groups, endless


def _is_open(vectors: NDArray[np.float64]) -> bool:
    """Return whether bonds to metals leave a wide cone free; none leave everything."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = (_directions() @ units.T).max(axis=1, initial=-1.0)
    return bool(nearest.min() < OPEN_COSINE)


@cache
def _directions() -> NDArray[np.float64]:
    """Return unit vectors that cover the sphere evenly (Fibonacci spiral)."""
    number = np.arange(N_DIRECTIONS)
    z = 1 - (2 * number + 1) / N_DIRECTIONS
    turn = np.pi * (1 + 5**0.5) * number
    across = np.sqrt(1 - z**2)
    return np.column_stack([across * np.cos(turn), across * np.sin(turn), z])


def _bulk_elements(
    atoms: Atoms,
    inside: NDArray[np.bool_],
    outside: list[NDArray[np.int_]],
    *,
    n_metal: int,
) -> set[int]:
    """Return the non-metals that the material consists of.

    Those that are as often surrounded by metal as not; and those that are no fewer than
    the metals and lie on both faces, or in one plane with them: an oxide at any
    thickness, MoS2, a sheet of ZnO.
    """
    bare = np.concatenate(outside) if outside else np.zeros(0, dtype=int)
    heights = atoms.positions[:, 2]
    flat = np.ptp(heights) < FLAT_A
    own = set()
    for number in set(atoms.numbers[inside].tolist()) | set(
        atoms.numbers[bare].tolist()
    ):
        of_kind = bare[atoms.numbers[bare] == number]
        surrounded = int((inside & (atoms.numbers == number)).sum())
        both = (
            np.ptp(np.sign(heights[of_kind] - heights.mean())) == 2
            if len(of_kind)
            else False
        )
        many = len(of_kind) + surrounded >= n_metal
        if (surrounded and surrounded >= len(of_kind)) or (many and (flat or both)):
            own.add(int(number))
    return own
