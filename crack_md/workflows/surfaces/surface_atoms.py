"""Atoms of a surface: those that a rolling ball touches, and adsorbates already there.

Heights do not tell: oxygen in the trough of a step lies below the terrace, and that on
the back side below everything. Bonds do. Non-metal atoms that hold together are one
species. It is adsorbed where its bonds to metals leave a wide cone free, and a part of
the bulk where metal surrounds it. Of an element that the bulk holds, as oxides and
carbides do, species at the surface are its termination.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from crack_md.structures import NONMETALS

CONTACT_SCALE = 1.15
"""The ball is larger than a bond, or it would fall through the hollows of Au(100)."""
CONTACT_TOLERANCE_A = 0.25
OVERLAP_TOLERANCE_A = 0.05

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ContactSurface:
    """The slab's atoms and their lateral images, with the radius of contact of each."""

    positions: Points
    index: NDArray[np.int_]
    bond: Points
    """Sum of covalent radii with the adsorbate in Å."""

    @property
    def reach(self) -> Points:
        """Return the distance in Å at which the ball touches each atom."""
        return CONTACT_SCALE * self.bond

    @classmethod
    def around(cls, atoms: Atoms, adsorbate: str) -> "ContactSurface":
        """Return the surface of ``atoms`` for a ball with the adsorbate's radius."""
        radii = covalent_radii[atoms.numbers]
        bond = np.asarray(radii + covalent_radii[atomic_numbers[adsorbate]])
        lateral = 2.5 * CONTACT_SCALE * bond.max()
        a, b = atoms.cell.array[:2]
        area = np.linalg.norm(np.cross(a, b))
        counts = [int(np.ceil(lateral * np.linalg.norm(v) / area)) for v in (b, a)]
        shifts = [
            m * a + n * b
            for m in range(-counts[0], counts[0] + 1)
            for n in range(-counts[1], counts[1] + 1)
        ]
        # The home cell first: indices below n_atoms are the atoms themselves.
        shifts.sort(key=lambda shift: float(shift @ shift))
        high = atoms.positions[:, 2].max() - 3 * CONTACT_SCALE * bond.max()
        positions = np.concatenate([atoms.positions + shift for shift in shifts])
        index = np.tile(np.arange(len(atoms)), len(shifts))
        near = (positions[:, 2] > high) | (np.arange(len(index)) < len(atoms))
        return cls(positions[near], index[near], bond[index[near]])

    def near(self, image: int) -> "ContactSurface":
        """Return what a ball in touch with an image may touch too; the image first."""
        distance = np.linalg.norm(
            (self.positions - self.positions[image])[:, :2], axis=1
        )
        chosen = np.argsort(distance + (np.arange(len(distance)) != image))
        chosen = chosen[distance[chosen] < 2.2 * self.reach.max()]
        return ContactSurface(
            self.positions[chosen], self.index[chosen], self.bond[chosen]
        )

    def is_free(self, point: Points) -> bool:
        """Return whether the ball fits at ``point`` without entering an atom."""
        distance = np.linalg.norm(self.positions - point, axis=1)
        return bool((distance > self.reach - OVERLAP_TOLERANCE_A).all())

    def resting_point(self, lateral: Points) -> Points:
        """Return where the ball comes to rest when it is lowered at a place."""
        offset_2 = ((self.positions[:, :2] - lateral) ** 2).sum(axis=1)
        below = offset_2 < self.reach**2
        heights = self.positions[below, 2] + np.sqrt(
            self.reach[below] ** 2 - offset_2[below]
        )
        floor = self.positions[:, 2].min()
        return np.array([*lateral, heights.max(initial=floor)])

    def touching(self, point: Points) -> NDArray[np.int_]:
        """Return the images that a ball at ``point`` rests on."""
        distance = np.linalg.norm(self.positions - point, axis=1)
        return np.flatnonzero(distance < self.reach + CONTACT_TOLERANCE_A)


def resting_points(surface: ContactSurface, exposed: NDArray[np.int_]) -> list[Points]:
    """Return where the ball stands on one, two or three atoms, and nowhere inside."""
    up = np.array([0.0, 0.0, 1.0])
    found: list[Points] = []
    for atom in exposed.tolist():
        local = surface.near(atom)
        feet: list[int] = np.flatnonzero(np.isin(local.index, exposed)).tolist()
        around = [j for j in feet if j != 0 and _overlap(0, j, local)]
        candidates: list[Points | None] = [local.positions[0] + local.reach[0] * up]
        candidates += [_over_pair((0, j), local) for j in around]
        candidates += [
            _over_triple((0, j, k), local)
            for j, k in combinations(around, 2)
            if _overlap(j, k, local)
        ]
        found += [p for p in candidates if p is not None and local.is_free(p)]
    return found


def exposed_atoms(
    atoms: Atoms, *, adsorbate: str = "O", spacing_A: float = 0.3
) -> NDArray[np.int_]:
    """Return the atoms that a ball lowered from above touches first somewhere."""
    surface = ContactSurface.around(atoms, adsorbate)
    # Zero is among the offsets: a deep atom may be touched from straight above alone.
    steps = spacing_A * np.arange(-(n := int(surface.reach.max() / spacing_A)), n + 1)
    disc = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    return np.array(
        [i for i in range(len(atoms)) if _is_exposed(surface.near(i), disc)]
    )


def _is_exposed(surface: ContactSurface, disc: Points) -> bool:
    """Return whether the ball lands on the first atom at any offset in ``disc``."""
    radius = surface.reach[0]
    inside = disc[np.hypot(*disc.T) < 0.95 * radius]
    rise = np.sqrt(radius**2 - (inside**2).sum(axis=1))
    landing = np.column_stack([inside, rise]) + surface.positions[0]
    offset = landing[:, None, :2] - surface.positions[None, :, :2]
    reach_2 = surface.reach**2 - (offset**2).sum(axis=-1)  # (landing, image)
    contact = surface.positions[:, 2] + np.sqrt(np.maximum(reach_2, 0.0))
    contact[reach_2 <= 0] = -np.inf
    return bool((contact.max(axis=1) <= landing[:, 2] + OVERLAP_TOLERANCE_A).any())


def _overlap(i: int, j: int, surface: ContactSurface) -> bool:
    """Return whether one ball can touch both atoms."""
    distance = np.linalg.norm(surface.positions[i] - surface.positions[j])
    return bool(distance < surface.reach[i] + surface.reach[j])


def _over_pair(pair: tuple[int, int], surface: ContactSurface) -> Points | None:
    """Return the highest point in touch with both atoms, if it lies between them."""
    (p, q), (r, s) = surface.positions[list(pair)], surface.reach[list(pair)]
    distance = float(np.linalg.norm(q - p))
    axis = (q - p) / distance
    along = (distance**2 + r**2 - s**2) / (2 * distance)
    height_2 = r**2 - along**2
    upward = np.array([0.0, 0.0, 1.0]) - axis[2] * axis
    if height_2 <= 0 or np.linalg.norm(upward) < 0.3:
        return None
    point = p + along * axis + np.sqrt(height_2) * upward / np.linalg.norm(upward)
    lateral = (q - p)[:2]
    fraction = (point - p)[:2] @ lateral / (lateral @ lateral)
    return np.asarray(point) if 0.1 < fraction < 0.9 else None


def _over_triple(
    triple: tuple[int, int, int], surface: ContactSurface
) -> Points | None:
    """Return the upper of the two points in touch with three atoms (trilateration)."""
    (p, q, s), (r_p, r_q, r_s) = (
        surface.positions[list(triple)],
        surface.reach[list(triple)],
    )
    x_axis = (q - p) / np.linalg.norm(q - p)
    across = (s - p) - ((s - p) @ x_axis) * x_axis
    if np.linalg.norm(across) < 0.5:
        return None
    y_axis = across / np.linalg.norm(across)
    d, i, j = np.linalg.norm(q - p), (s - p) @ x_axis, (s - p) @ y_axis
    x = (r_p**2 - r_q**2 + d**2) / (2 * d)
    y = (r_p**2 - r_s**2 + i**2 + j**2 - 2 * i * x) / (2 * j)
    height_2 = r_p**2 - x**2 - y**2
    if height_2 <= 0:
        return None
    normal = np.cross(x_axis, y_axis)
    normal *= np.sign(normal[2]) if abs(normal[2]) > 1e-6 else 1.0
    return np.asarray(p + x * x_axis + y * y_axis + np.sqrt(height_2) * normal)


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
    nonmetal = np.isin(atoms.numbers, sorted(NONMETALS))
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
