"""Symmetry-distinct adsorption sites of a slab, on any facet.

One geometric idea serves all facets: roll a ball of the adsorbate's size over the
surface. Where it stands on one atom is an ontop site, where it is highest between two
a bridge, where it rests on three or four a hollow. What the ball cannot reach is not
surface, so steps, troughs and skins need no case of their own. fcc and hcp hollows
differ by the atom straight beneath. Symmetry comes from spglib, restricted to the
operations that leave the upper side up.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from crack_md.workflows.surfaces.slab import Slab
from crack_md.workflows.surfaces.surface_atoms import (
    ContactSurface,
    Points,
    resting_points,
)
from crack_md.workflows.surfaces.symmetry import (
    SurfaceSymmetry,
    flat_cell,
    surface_symmetry,
)

MERGE_A = 0.44
"""fcc, bridge and hcp of Ni(111), the narrowest common surface, are 0.72 Å apart."""
SAME_HEIGHT_A = 0.02
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
    points = resting_points(surface, slab.surface)
    symmetry = surface_symmetry(slab.atoms)
    sites = [
        _site(orbit, symmetry, surface, slab)
        for orbit in _orbits(_by_depth(points, surface), symmetry)
    ]
    sites = _in_order(sites, surface)
    labels = label_sites(
        [(site.kind, site.elements) for site in sites],
        one_element=len(set(slab.atoms.symbols)) == 1,
        one_on_top=len(set(slab.atoms.symbols[slab.surface])) == 1,
    )
    named = zip(sites, labels, strict=True)
    return tuple(replace(site, label=label) for site, label in named)


def _by_depth(points: Sequence[Points], surface: ContactSurface) -> list[Points]:
    """Return places from the lowest up, of those alike the one on most atoms first."""
    places = np.array(points).reshape(-1, 3)
    places = places[np.argsort(places[:, 2], kind="stable")]
    level = np.append(0, np.cumsum(np.diff(places[:, 2]) > SAME_HEIGHT_A))
    touched = np.array([len(surface.touching(place)) for place in places])
    order = np.lexsort((places[:, 2].round(5), -touched, level[: len(places)]))
    return list(places[order])


def _orbits(points: Sequence[Points], symmetry: SurfaceSymmetry) -> list[Points]:
    """Return classes of equivalent places, (member, 2) fractions each, lowest first.

    Of places nearer than 0.44 Å to one another the lowest stays, where a ball would
    come to rest; equivalent ones that near are one place in their middle. Whole classes
    are kept or left out, so that the order of atoms and supercells do not matter.
    """
    orbits: list[Points] = []
    known = np.zeros((0, 2))
    for point in points:
        images = symmetry.images(point[:2])
        if len(known) and symmetry.apart(images[:1], known).min() < MERGE_A:
            continue
        orbit = _middles(images, symmetry)
        orbits.append(orbit)
        known = np.concatenate([known, images, orbit])
    return orbits


def _middles(images: Points, symmetry: SurfaceSymmetry) -> Points:
    """Return the middle of every group of places that are near to one another."""
    near = symmetry.apart(images, images) < MERGE_A
    _, group = connected_components(near, directed=False)
    middles = []
    around = np.array([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    for number in range(group.max() + 1):
        members = images[group == number]
        choices = members[:, None] - members[0] + around  # (member, image, 2)
        choices -= np.round(choices.mean(axis=1, keepdims=True))
        shortest = np.linalg.norm(choices @ symmetry.vectors, axis=-1).argmin(axis=1)
        steps = choices[np.arange(len(members)), shortest]
        middles.append(members[0] + steps.mean(axis=0))
    return np.array(middles) % 1.0


def _site(
    orbit: Points, symmetry: SurfaceSymmetry, surface: ContactSurface, slab: Slab
) -> Site:
    """Return the site of a class, its first member inside the cell, without a label."""
    cell = slab.atoms.cell.array[:2, :2]
    places = (orbit @ symmetry.vectors)[:, None] + symmetry.repeats
    fractions = np.linalg.solve(cell.T, places.reshape(-1, 2).T).T % 1.0
    fractions[fractions > 1 - 1e-6] = 0.0
    fractions = fractions[np.lexsort(np.round(fractions, 3).T)]
    laterals = fractions @ cell
    site = describe(surface.resting_point(laterals[0]), surface, slab)
    heights = np.full(len(laterals), site.position[2])
    return replace(site, members=np.column_stack([laterals, heights]))


def _in_order(sites: Sequence[Site], surface: ContactSurface) -> list[Site]:
    """Return sites by kind and elements, then the higher first, then the denser.

    Numbers in labels follow this order, so it has to be one of the surface, not one of
    coordinates or atoms.
    """
    ordered: list[Site] = []
    alike: dict[tuple[int, str], list[Site]] = {}
    for site in sites:
        alike.setdefault((KINDS.index(site.kind), site.elements), []).append(site)
    for _, group in sorted(alike.items()):
        group.sort(key=lambda site: -site.position[2])
        heights = np.array([site.position[2] for site in group])
        step = np.append(0, np.cumsum(-np.diff(heights) > SAME_HEIGHT_A)).tolist()
        crowded = [_crowding(site, surface) for site in group]
        keys = [(s, -round(c, 6)) for s, c in zip(step, crowded, strict=True)]
        order = sorted(range(len(group)), key=lambda place: keys[place])
        ordered += [group[place] for place in order]
    return ordered


def _crowding(site: Site, surface: ContactSurface) -> float:
    """Return how near the atoms within 5 Å are, their radii counted."""
    distance = np.linalg.norm(surface.positions - site.position, axis=1)
    return float((np.maximum(0.0, 1 - distance / 5.0) ** 2 * surface.bond).sum())


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


HOLLOWS = ("fcc", "hcp", "hollow", "4fold")
KINDS = ("ontop", "bridge", *HOLLOWS)


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
