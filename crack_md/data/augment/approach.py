"""Frames at short and long distances: pushed, pulled, stretched, pressed together.

They show where a bond ends and where atoms repel; structures at rest show neither.
"""

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.random import Generator
from numpy.typing import NDArray

from crack_md.data.augment.adsorbates import OH_BOND, drop_height, site_above
from crack_md.data.augment.distort import LIGHT, displaced, log_uniform, open_directions
from crack_md.data.augment.variants import Contact, Pull, Push, Stretch

SITES = {"here": 0.4, "ontop": 0.25, "bridge": 0.1, "hollow": 0.1, "anywhere": 0.15}
"""Where an adsorbate is pushed into the surface; `here` is where it stands."""
TRIES = 30
LIGHT_BOND = 1.7
"""Å, longest distance of two light atoms that is a bond."""


def pushed(atoms: Atoms, section: Push, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with the adsorbate pressed onto a metal atom, or below the surface.

    One half has the lowest atom of the adsorbate at a drawn distance from the nearest
    metal atom straight below or beside it, as a ball rests on balls. The other half has
    it anywhere down to a depth, no nearer than allowed.
    """
    adsorbate = _adsorbate(atoms)
    for _ in range(section.frames if len(adsorbate) else 0):
        frame = displaced(atoms, section.rattle, random)
        metal = frame[frame.numbers > LIGHT]
        for _ in range(TRIES):
            target = _pushed_position(frame, metal, adsorbate, section, random)
            moved = frame.copy()
            moved.positions[adsorbate] += target - frame.positions[adsorbate[0]]
            if _nearest(moved, adsorbate) >= section.nearest - 1e-6:
                yield moved
                break


def pulled(atoms: Atoms, section: Pull, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with the adsorbate raised above where it stands."""
    adsorbate = _adsorbate(atoms)
    for _ in range(section.frames if len(adsorbate) else 0):
        frame = displaced(atoms, section.rattle, random)
        frame.positions[adsorbate, 2] += random.uniform(
            section.nearest, section.farthest
        )
        yield frame


def stretched(atoms: Atoms, section: Stretch, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with the bonds of O and H atoms stretched, each on its own.

    Above a surface an O-H bond is turned as well, to any direction in which the
    hydrogen atom keeps the smallest bond length from all others.
    """
    bonds = light_bonds(atoms)
    on_slab = not open_directions(atoms).all()
    for _ in range(section.frames if bonds else 0):
        for _ in range(TRIES):
            frame = displaced(atoms, 0.02, random)
            for fixed, moving in bonds:
                bond = frame.get_distance(fixed, moving, mic=True, vector=True)
                ideal = atoms.get_distance(fixed, moving, mic=True)
                if on_slab:
                    bond = _direction(random)
                    ideal = OH_BOND
                factor = log_uniform(section.nearest, section.farthest, random)
                length = factor * ideal / OH_BOND
                frame.positions[moving] = (
                    frame.positions[fixed] + bond / np.linalg.norm(bond) * length
                )
            if _nearest(frame, np.array([bonds[0][1]])) > 0.9 * section.nearest:
                yield frame
                break


def pressed(atoms: Atoms, section: Contact, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with two neighbors brought closer along their line."""
    if len(atoms) < 2:
        return
    for _ in range(section.frames):
        frame = displaced(atoms, section.rattle, random)
        first = int(random.integers(len(frame)))
        to_others = frame.get_distances(first, range(len(frame)), mic=True)
        to_others[first] = np.inf
        # one of the nearest: its image in a small cell would move along
        near = np.flatnonzero(to_others < 1.2 * to_others.min())
        second = int(random.choice(near))
        line = frame.get_distance(first, second, mic=True, vector=True)
        factor = log_uniform(section.nearest, section.farthest, random)
        frame.positions[first] += (1 - factor) / 2 * line
        frame.positions[second] -= (1 - factor) / 2 * line
        yield frame


def light_bonds(atoms: Atoms) -> list[tuple[int, int]]:
    """Return the bonds between O and H atoms as (atom that stays, atom that moves).

    Hydrogen moves where there is one, and every atom moves for one bond only.
    """
    bonds: dict[int, int] = {}
    light = np.flatnonzero(atoms.numbers <= LIGHT)
    for moving in sorted(light, key=lambda k: (atoms.numbers[k], -k)):
        others = [int(k) for k in light if k != moving and bonds.get(int(k)) != moving]
        others = [k for k in others if atoms.numbers[k] >= atoms.numbers[moving]]
        if int(moving) in bonds.values() or not others:
            continue
        distance = atoms.get_distances(moving, others, mic=True)
        if distance.min() < LIGHT_BOND:
            bonds[int(moving)] = others[int(np.argmin(distance))]
    return [(fixed, moving) for moving, fixed in bonds.items()]


def _pushed_position(
    frame: Atoms,
    metal: Atoms,
    adsorbate: NDArray[np.int_],
    section: Push,
    random: Generator,
) -> NDArray[np.float64]:
    site = str(random.choice(list(SITES), p=list(SITES.values())))
    here = frame.positions[adsorbate[0]]
    lateral = here[:2] if site == "here" else site_above(metal, site, random=random)
    if random.random() < 0.5:
        contact = log_uniform(section.nearest, section.farthest, random)
        return np.array([*lateral, drop_height(metal, lateral, contact)])
    top = float(metal.positions[:, 2].max())
    return np.array([*lateral, random.uniform(top - section.depth, top + 1.0)])


def _adsorbate(atoms: Atoms) -> NDArray[np.int_]:
    """Return one adsorbate of a slab, its lowest-numbered heavy atom first."""
    light = np.flatnonzero(atoms.numbers <= LIGHT)
    opened = open_directions(atoms)
    if len(light) == 0 or len(light) == len(atoms) or opened[:2].any() or not opened[2]:
        return np.array([], dtype=int)
    first = int(light[0])
    with_it = [moving for fixed, moving in light_bonds(atoms) if fixed == first]
    return np.array([first, *with_it], dtype=int)


def _nearest(atoms: Atoms, chosen: NDArray[np.int_]) -> float:
    """Return the shortest distance from one of the chosen atoms to any other atom."""
    receivers, distance = neighbor_list("id", atoms, 2.5)
    mine = np.isin(receivers, chosen)
    return float(distance[mine].min()) if mine.any() else 2.5


def _direction(random: Generator) -> NDArray[np.float64]:
    direction = random.normal(size=3)
    return direction / np.linalg.norm(direction)
