"""Symmetry-distinct adsorption sites of a slab, on any facet.

One geometric idea serves all facets: roll a ball of the adsorbate's size over the
surface. Where it stands on one atom is an ontop site, where it is highest between two
a bridge, where it rests on three or four a hollow. What the ball cannot reach is not
surface, so steps, troughs and skins need no case of their own. fcc and hcp hollows
differ by the atom straight beneath. Symmetry comes from spglib, restricted to the
operations that leave the upper side up.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import spglib
from ase import Atoms
from ase.geometry import find_mic
from numpy.typing import NDArray

from crack_md.workflows.surfaces.contact_surface import (
    ContactSurface,
    Points,
    resting_points,
)
from crack_md.workflows.surfaces.slab import Slab

MERGE_A = 0.5
"""fcc, bridge and hcp of Ni(111), the narrowest common surface, are 0.72 Å apart."""
MIN_HEIGHT_A = 0.6
EVEN_RATIO = 1.12
"""Sides of a hollow: 1 on fcc(111), up to 1.1 when rattled, 1.155 on bcc(110)."""


@dataclass(frozen=True, eq=False)
class Site:
    """One class of symmetry-equivalent adsorption sites."""

    label: str
    """Unique on the slab: ``fcc`` or ``fcc-2``, on alloys ``fcc-Pt2Ru``."""
    kind: str
    position: Points
    """Å; at the height where covalent radii touch."""
    contacts: tuple[int, ...]
    """Atoms the adsorbate stands on."""
    elements: str
    """Elements of the contacts, then of the nearest atoms beneath: ``Pt3/Ni``."""
    members: Points
    """(member, 3) positions of all equivalent sites in the cell."""

    @property
    def coordination(self) -> int:
        """Return how many atoms the adsorbate stands on, images included."""
        return len(self.contacts)

    @property
    def environment(self) -> str:
        """Return the kind and the elements of the contacts: ``fcc-Pt2Ru``."""
        return f"{self.kind}-{self.elements.partition('/')[0]}"

    @property
    def multiplicity(self) -> int:
        """Return how many equivalent sites the cell holds."""
        return len(self.members)


def find_sites(slab: Slab, *, adsorbate: str = "O") -> tuple[Site, ...]:
    """Return the distinct sites of the upper side, ordered by kind.

    Args:
        slab: a prepared slab.
        adsorbate: symbol of the atom that binds.
    """
    surface = ContactSurface.around(slab.atoms, adsorbate)
    points = _merge(resting_points(surface, slab.surface), slab.atoms)
    described = [describe(point, surface, slab) for point in points]
    sites = sorted(_distinct(described, slab.atoms), key=_order)
    labels = label_sites(
        [(site.kind, site.elements) for site in sites],
        one_element=len(set(slab.atoms.symbols)) == 1,
        one_on_top=len(set(slab.atoms.symbols[slab.surface])) == 1,
    )
    named = zip(sites, labels, strict=True)
    return tuple(replace(site, label=label) for site, label in named)


def _order(site: Site) -> tuple[int, str, float, float]:
    x, y = np.round(site.position[:2], 3)
    return KINDS.index(site.kind), site.elements, float(x), float(y)


def _merge(points: list[Points], atoms: Atoms) -> list[Points]:
    """Return one point per site: images folded together, near-duplicates averaged."""
    merged: list[Points] = []
    left = np.array(points).reshape(-1, 3)
    while len(left):
        offsets = lateral_vectors(left - left[0], atoms)
        close = np.linalg.norm(offsets, axis=1) < MERGE_A
        heights = left[close, 2]
        mean = left[0] + offsets[close].mean(axis=0)
        merged.append(np.array([mean[0], mean[1], heights.mean()]))
        left = left[~close]
    return merged


def lateral_vectors(vectors: Points, atoms: Atoms) -> Points:
    """Return minimum-image vectors in the surface plane, their z set to zero."""
    flat = np.array(vectors, dtype=float)
    flat[:, 2] = 0.0
    shortest: Points = find_mic(flat, flat_cell(atoms), pbc=(True, True, False))[0]
    return shortest


def describe(point: Points, surface: ContactSurface, slab: Slab) -> Site:
    """Return the site that an adsorbate at a point is on, as yet without a label."""
    touching = surface.touching(point)
    # A near-duplicate average may hang a little above what it stands on.
    if len(touching) == 0:
        touching = np.array(
            [np.linalg.norm(surface.positions - point, axis=1).argmin()]
        )
    kind, beneath = _kind(touching, point, surface)
    offset = np.linalg.norm(surface.positions[:, :2] - point[:2], axis=1)
    inside = offset < surface.bond
    contact = surface.positions[inside, 2] + np.sqrt(
        surface.bond[inside] ** 2 - offset[inside] ** 2
    )
    floor = surface.positions[touching, 2].mean() + MIN_HEIGHT_A
    height = max([floor, *contact])
    symbols = slab.atoms.symbols
    top = str(formula(symbols[surface.index[touching]]))
    below = str(formula(symbols[surface.index[beneath]]))
    position = np.array([point[0], point[1], height])
    return Site(
        label=kind,
        kind=kind,
        position=position,
        contacts=tuple(int(index) for index in surface.index[touching]),
        elements=f"{top}/{below}" if below else top,
        members=position[None],
    )


def _kind(
    touching: NDArray[np.int_], point: Points, surface: ContactSurface
) -> tuple[str, NDArray[np.int_]]:
    """Return the name of a site and the nearest atoms beneath those it stands on."""
    feet = surface.positions[touching]
    deeper = np.flatnonzero(surface.positions[:, 2] < feet[:, 2].min() - MERGE_A)
    distance = np.linalg.norm(surface.positions[deeper] - point, axis=1)
    beneath = deeper[distance < 1.1 * distance.min()] if len(deeper) else deeper
    if len(feet) <= 2:
        return KINDS[len(feet) - 1], beneath
    # Open surfaces such as bcc(100): the atom under the four is touched as well.
    sideways = np.linalg.norm(feet[:, :2] - point[:2], axis=1)
    corners = feet[sideways > MERGE_A]
    if len(corners) == 4 and _is_even(corners, sides=4):
        return "4fold", beneath
    if len(feet) != 3 or not _is_even(feet, sides=3):
        return "hollow", beneath
    return ("hcp" if _atom_below(feet, surface) else "fcc"), beneath


def _is_even(corners: Points, *, sides: int) -> bool:
    """Return whether the shortest ``sides`` distances between corners are alike."""
    lengths = sorted(np.linalg.norm(p - q) for p, q in combinations(corners, 2))
    return bool(lengths[sides - 1] < EVEN_RATIO * lengths[0])


def _atom_below(feet: Points, surface: ContactSurface) -> bool:
    """Return whether an atom lies straight under a triangle, one layer down."""
    center = feet.mean(axis=0)
    normal = np.cross(feet[1] - feet[0], feet[2] - feet[0])
    normal /= np.linalg.norm(normal) * (np.sign(normal[2]) or 1.0)
    spacing = float(np.linalg.norm(feet[1] - feet[0]))
    depth = (center - surface.positions) @ normal
    foot = surface.positions + depth[:, None] * normal
    sideways = np.linalg.norm(foot - center, axis=1)
    one_layer_down = (depth > 0.3 * spacing) & (depth < 1.2 * spacing)
    return bool((one_layer_down & (sideways < 0.35 * spacing)).any())


def _distinct(sites: list[Site], atoms: Atoms) -> list[Site]:
    """Return one site per symmetry class, with all members of the class."""
    rotations, translations = surface_operations(atoms)
    cell = flat_cell(atoms)
    left = list(sites)
    classes: list[Site] = []
    while left:
        first = left[0]
        scaled = np.linalg.solve(cell.T, first.position)
        copies = (rotations @ scaled + translations) @ cell
        positions = np.array([site.position for site in left])
        apart = (copies[None, :] - positions[:, None]).reshape(-1, 3)
        lateral = np.linalg.norm(lateral_vectors(apart, atoms), axis=1)
        distances = lateral.reshape(len(left), -1).min(axis=1)
        same = [
            site
            for site, distance in zip(left, distances, strict=True)
            if distance < MERGE_A / 2 and site.kind == first.kind
        ]
        same = same or [first]
        members = np.array([site.position for site in same])
        classes.append(replace(first, members=members))
        left = [site for site in left if all(site is not member for member in same)]
    return classes


KINDS = ("ontop", "bridge", "fcc", "hcp", "hollow", "4fold")


def formula(symbols: Iterable[str]) -> str:
    """Return ``Pt2Ru`` for two Pt and a Ru: the commonest first, then by name."""
    counts = sorted(Counter(symbols).items(), key=lambda item: (-item[1], item[0]))
    return "".join(f"{symbol}{n if n > 1 else ''}" for symbol, n in counts)


def label_sites(
    sites: Sequence[tuple[str, str]], *, one_element: bool, one_on_top: bool
) -> list[str]:
    """Return a unique label for every site of a slab, as short as tells them apart.

    A pure metal has ``fcc``, or ``fcc-1`` and ``fcc-2``. Where elements differ, labels
    name those of the contacts, ``fcc-Pt2Ru``; where that is not enough, the nearest
    atoms beneath, ``fcc-Pt3/Ru``; where that is not enough, a number.

    Args:
        sites: kind and elements (``Pt2Ru/Pt3``) of every site.
        one_element: whether the whole slab is of one element.
        one_on_top: whether all exposed atoms are.
    """
    kinds = Counter(kind for kind, _ in sites)
    distinct = Counter(_contacts(kind, elements) for kind, elements in set(sites))
    labels = []
    for kind, elements in sites:
        alone = kinds[kind] == 1 and one_on_top
        if one_element or alone:
            labels.append(kind)
        elif distinct[_contacts(kind, elements)] == 1:
            labels.append(_contacts(kind, elements))
        else:
            labels.append(f"{kind}-{elements}")
    counts, seen = Counter(labels), Counter[str]()
    for place, label in enumerate(labels):
        seen[label] += 1
        if counts[label] > 1:
            labels[place] = f"{label}-{seen[label]}"
    return labels


def _contacts(kind: str, elements: str) -> str:
    return f"{kind}-{elements.partition('/')[0]}"


SYMMETRY_TOLERANCE_A = 0.1


def flat_cell(atoms: Atoms) -> Points:
    """Return the cell with its third vector along the normal."""
    cell = atoms.cell.array.copy()
    cell[2, :2] = 0.0  # a lean of c matters in the vacuum only
    return cell


def surface_operations(atoms: Atoms) -> tuple[Points, Points]:
    """Return rotations and translations (scaled) that keep the upper side up."""
    cell = flat_cell(atoms)
    scaled = np.linalg.solve(cell.T, atoms.positions.T).T
    with warnings.catch_warnings():
        # spglib 2.7 announces exceptions instead of None: both are handled here.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            found = spglib.get_symmetry(
                (cell.tolist(), scaled.tolist(), atoms.numbers.tolist()),
                symprec=SYMMETRY_TOLERANCE_A,
            )
        except spglib.SpglibError:
            found = None
    if found is None:
        return np.eye(3)[None], np.zeros((1, 3))
    rotations, translations = found["rotations"], found["translations"]
    keep = [index for index, turn in enumerate(rotations) if _keeps_top(turn)]
    return rotations[keep].astype(float), translations[keep]


def _keeps_top(rotation: NDArray[np.int_]) -> bool:
    mixes = rotation[2, :2].any() or rotation[:2, 2].any()
    return bool(rotation[2, 2] == 1 and not mixes)


def random_sites(
    slab: Slab, *, count: int, seed: int, adsorbate: str = "O"
) -> tuple[Site, ...]:
    """Return places where a ball, lowered anywhere above the cell, touches the slab.

    The nth place depends on the seed and n alone: a longer list begins like a shorter
    one, and every slab of the same cell gets the same places.

    Args:
        slab: a prepared slab.
        count: how many.
        seed: of NumPy's default generator.
        adsorbate: symbol of the atom that binds.
    """
    surface = ContactSurface.around(slab.atoms, adsorbate)
    sites = []
    for number in range(1, count + 1):
        fractions = np.random.default_rng([seed, number]).random(2)
        lateral = (fractions @ slab.atoms.cell.array[:2])[:2]
        site = describe(surface.resting_point(lateral), surface, slab)
        sites.append(replace(site, label=f"random-{number}"))
    return tuple(sites)


def some_sites(
    sites: tuple[Site, ...], *, limit: int | None, seed: int
) -> tuple[Site, ...]:
    """Return all sites, or a random choice of as many as the limit, in their order."""
    if limit is None or len(sites) <= limit:
        return sites
    chosen = np.random.default_rng(seed).choice(len(sites), limit, replace=False)
    return tuple(sites[index] for index in sorted(chosen))
