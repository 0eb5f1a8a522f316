"""O, OH and H dropped on the sites of a slab."""

from collections.abc import Sequence

import numpy as np
from ase import Atom, Atoms
from numpy.random import Generator
from numpy.typing import NDArray

CONTACT = {"ontop": 1.82, "bridge": 1.95, "hollow": 2.05, "anywhere": 1.95}
"""Å between O and the metal atoms it touches, typical of 4d and 5d surfaces."""
H_CONTACT = -0.22
"""Å by which H comes closer to metal atoms than O."""
OH_BOND = 0.98
PROBE = 2.6
"""Å, ball that finds the exposed atoms; it must not slip through a hollow."""


def add_adsorbates(
    slab: Atoms, species: Sequence[str], *, random: Generator
) -> Atoms | None:
    """Return the slab with O, OH or H dropped on random sites, None if they overlap.

    An adsorbate is lowered at a drawn lateral position until it touches the surface,
    as a ball onto balls; contact distance and lateral offset scatter around the ideal.
    """
    result = slab.copy()
    placed: list[NDArray[np.float64]] = []
    for name in species:
        kind = str(random.choice(list(CONTACT), p=[0.22, 0.2, 0.46, 0.12]))
        contact = CONTACT[kind] + random.normal(0, 0.08)
        contact += H_CONTACT if name == "H" else 0.0
        if random.random() < 0.1:
            contact += random.uniform(0.3, 1.2)  # on its way down
        lateral = site_above(slab, kind, random=random) + random.normal(0, 0.12, 2)
        lowest = np.array([*lateral, drop_height(slab, lateral, contact)])
        if any(_distance(result, lowest, other) < 2.2 for other in placed):
            return None
        placed.append(lowest)
        result.append(Atom(name[0], lowest))
        if name == "OH":
            tilt, turn = random.uniform(0, np.radians(85)), random.uniform(0, 2 * np.pi)
            direction = [np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn)]
            bond = OH_BOND + random.normal(0, 0.02)
            result.append(
                Atom("H", lowest + bond * np.array([*direction, np.cos(tilt)]))
            )
    return result


def site_above(slab: Atoms, kind: str, *, random: Generator) -> NDArray[np.float64]:
    """Return the lateral position of a random site: ontop, bridge, hollow, anywhere."""
    if kind == "anywhere":
        return (random.random(3) @ slab.cell.array)[:2]
    exposed = _exposed(slab)
    top = exposed[random.choice(_home(exposed, slab))]
    distance = np.linalg.norm(exposed - top, axis=1)
    close = np.argsort(distance)[1:]
    bond = distance[close[0]]
    if kind == "ontop":
        return top[:2]
    near = close[distance[close] < 1.2 * bond]
    other = exposed[random.choice(near)]
    if kind == "bridge":
        return (top[:2] + other[:2]) / 2
    third = [
        k for k in near if 0.5 * bond < np.linalg.norm(exposed[k] - other) < 1.5 * bond
    ]
    if not third:
        return (top[:2] + other[:2]) / 2
    last = exposed[random.choice(third)]
    corners = np.array([top[:2], other[:2], last[:2]])
    # three mutual neighbors span a hollow; a right angle spans a square's half
    right_angle = np.linalg.norm(last - other) > 1.2 * bond
    return (other + last)[:2] / 2 if right_angle else corners.mean(axis=0)


def drop_height(slab: Atoms, lateral: NDArray[np.float64], contact: float) -> float:
    """Return the height in Å at which a ball of radius `contact` rests on the slab."""
    images, heights = _images(slab)
    across = np.linalg.norm(images[:, :2] - lateral, axis=1)
    below = across < contact
    if not below.any():
        return float(heights.max())
    return float((heights[below] + np.sqrt(contact**2 - across[below] ** 2)).max())


def _exposed(slab: Atoms) -> NDArray[np.float64]:
    """Return the images of atoms that carry a ball dropped right above them."""
    bare = [
        drop_height(slab, position[:2], PROBE) < position[2] + PROBE + 1e-6
        for position in slab.positions
    ]
    return _images(slab[bare])[0]


def _images(slab: Atoms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    shifts = np.array([[i, j, 0] for i in range(-2, 3) for j in range(-2, 3)])
    images = (slab.positions + (shifts @ slab.cell.array)[:, np.newaxis]).reshape(-1, 3)
    return images, images[:, 2]


def _home(images: NDArray[np.float64], slab: Atoms) -> NDArray[np.int_]:
    """Return which images lie in the home cell."""
    scaled = np.linalg.solve(slab.cell.array.T, images.T).T[:, :2]
    inside = ((scaled > -1e-6) & (scaled < 1 - 1e-6)).all(axis=1)
    return np.flatnonzero(inside) if inside.any() else np.arange(len(images))


def _distance(
    cell: Atoms, first: NDArray[np.float64], second: NDArray[np.float64]
) -> float:
    pair = Atoms("O2", [first, second], cell=cell.cell, pbc=True)
    return float(pair.get_distance(0, 1, mic=True))
