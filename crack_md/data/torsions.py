"""Bond graphs and torsions of molecules: found, measured and turned.

Bonds come from distances and covalent radii. Atoms are alike when refinement of colors
cannot tell them apart (Weisfeiler and Leman, 1968): start from the element, then split
by the colors of the neighbors until nothing changes. Equal colors are necessary for a
symmetry of the graph, and sufficient in all but a few very regular cages.

Every bond outside rings whose two ends carry further atoms is one torsion. Its angle is
measured between the neighbors of highest rank (the heaviest, then those with the
heaviest neighbors). Where several are alike, as the three hydrogens of a methyl group,
all are measured and their values are pooled; so are the values of bonds that are alike.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import lcm

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Float, Int

from crack_md.errors import StructureError

BOND_FACTOR = 1.25
"""A bond is shorter than this times the sum of covalent radii: O–H 0.97 of 1.21 Å, but
not a hydrogen bond, 1.6 Å."""
BLOW_UP_A = 0.5
"""A molecule has come apart where a bond is so far off its mean, as in Fu et al.,
"Forces are not enough", arXiv:2210.07237."""

Frames = Float[np.ndarray, "frame atom 3"]
Bonds = Int[np.ndarray, "bond 2"]


def bonded_pairs(numbers: Int[np.ndarray, " atom"], frames: Frames) -> Bonds:
    """Return the pairs i < j whose median distance is that of a bond, ascending."""
    radii = covalent_radii[numbers]
    first, second = np.triu_indices(len(numbers), k=1)
    median = np.median(distances(frames, np.stack([first, second], 1)), axis=0)
    bonded = median < BOND_FACTOR * (radii[first] + radii[second])
    return np.stack([first[bonded], second[bonded]], axis=1)


def distances(
    frames: Frames, pairs: Int[np.ndarray, "pair 2"]
) -> Float[np.ndarray, "frame pair"]:
    """Return the distances of pairs of atoms in every frame, in Å."""
    vectors = frames[:, pairs[:, 0]] - frames[:, pairs[:, 1]]
    return np.linalg.norm(vectors, axis=-1)


def broken_bond(
    frame: Float[np.ndarray, "atom 3"],
    bonds: Bonds,
    means: Float[np.ndarray, " bond"],
    most: float | Float[np.ndarray, " bond"] = BLOW_UP_A,
) -> str | None:
    """Return which bond of a structure has come apart, or None.

    Args:
        frame: positions in Å.
        bonds: pairs of atoms.
        means: their usual lengths in Å.
        most: how far off them they may be, in Å.
    """
    if not len(bonds):
        return None
    off = distances(frame[None], bonds)[0] - means
    worst = int(np.argmax(np.abs(off) - most))
    if not (np.abs(off) > most)[worst]:
        return None
    i, j = bonds[worst]
    return f"bond {i}–{j} is {off[worst]:+.2f} Å off its mean"


PYRAMIDS = frozenset({15, 16, 33, 34, 51, 52})
"""P, S and below keep a pyramid of three different neighbors for hours; N does not."""

Positions = Float[np.ndarray, "frame atom 3"]


@dataclass(frozen=True)
class BondGraph:
    """Atoms and bonds of one molecule."""

    numbers: tuple[int, ...]
    bonds: tuple[tuple[int, int], ...]
    """i < j, ascending."""

    @cached_property
    def neighbors(self) -> tuple[tuple[int, ...], ...]:
        """Return the bonded atoms of every atom, ascending."""
        found: list[list[int]] = [[] for _ in self.numbers]
        for i, j in self.bonds:
            found[i].append(j)
            found[j].append(i)
        return tuple(tuple(sorted(atoms)) for atoms in found)

    @cached_property
    def colors(self) -> tuple[int, ...]:
        """Return the class of every atom; heavier elements have higher numbers.

        The numbers do not depend on the order of the atoms.
        """
        colors = _ranks([(number,) for number in self.numbers])
        while True:
            seen = [
                (own, *sorted((colors[j] for j in atoms), reverse=True))
                for own, atoms in zip(colors, self.neighbors, strict=True)
            ]
            refined = _ranks(seen)
            if max(refined, default=0) == max(colors, default=0):
                return tuple(refined)
            colors = refined

    def is_in_ring(self, bond: tuple[int, int]) -> bool:
        """Return whether the ends of a bond are connected without it."""
        return bond[1] in self.side(bond[0], without=bond)

    def side(self, start: int, *, without: tuple[int, int]) -> frozenset[int]:
        """Return the atoms that an atom is connected to when one bond is cut."""
        reached, waiting = {start}, [start]
        while waiting:
            atom = waiting.pop()
            for other in self.neighbors[atom]:
                if {atom, other} != set(without) and other not in reached:
                    reached.add(other)
                    waiting.append(other)
        return frozenset(reached)

    @property
    def is_achiral(self) -> bool:
        """Return whether no atom is a stereocenter.

        A center has four neighbors of different color, or three on P, S, As, Se ...
        Meso forms have centers too and count as chiral here, which is the safe side.
        """
        return not any(self._is_stereocenter(atom) for atom in range(len(self.numbers)))

    def _is_stereocenter(self, atom: int) -> bool:
        colors = [self.colors[other] for other in self.neighbors[atom]]
        if len(set(colors)) < len(colors):
            return False
        needed = 3 if self.numbers[atom] in PYRAMIDS else 4
        return len(colors) >= needed


def find_bonds(numbers: Int[np.ndarray, " atom"], frames: Positions) -> BondGraph:
    """Return the graph of the pairs whose median distance is that of a bond.

    Raises:
        StructureError: the frames hold no molecule, or more than one.
    """
    graph = BondGraph(
        tuple(int(number) for number in numbers),
        tuple((int(i), int(j)) for i, j in bonded_pairs(numbers, frames)),
    )
    if len(numbers) < 3:
        raise StructureError(
            f"the frames have {len(numbers)} atoms; the sampling check is made for "
            "molecules of three and more"
        )
    if len(graph.side(0, without=(-1, -1))) < len(numbers):
        raise StructureError(
            "the frames are not of one molecule: bonds by covalent radii do not "
            "connect all atoms; the sampling check is made for one molecule in vacuum"
        )
    return graph


def _ranks(keys: list[tuple[int, ...]]) -> list[int]:
    places = {key: rank for rank, key in enumerate(sorted(set(keys)))}
    return [places[key] for key in keys]


LINEAR_DEGREES = 165.0
"""Beyond this angle at an end, as in alkynes, a torsion has no meaning."""

Angles = Float[np.ndarray, "frame member"]


@dataclass(frozen=True)
class Torsion:
    """All ways to measure one torsion that symmetry makes alike."""

    name: str
    atoms: tuple[tuple[int, int, int, int], ...]
    """One quadruple per member."""
    fold: int
    """Turning by 360°/fold exchanges atoms that are alike."""


def find_torsions(graph: BondGraph, frames: Positions) -> tuple[Torsion, ...]:
    """Return the torsions of a molecule, in the order of their first bonds.

    Args:
        graph: its bonds.
        frames: a few structures, to leave out chains of atoms on a line.
    """
    members: dict[tuple[int, ...], list[tuple[int, int, int, int]]] = defaultdict(list)
    folds: dict[tuple[int, ...], int] = {}
    for bond in graph.bonds:
        b, c = sorted(bond, key=lambda atom: graph.colors[atom])
        starts, ends = _ends(graph, b, c), _ends(graph, c, b)
        if not starts or not ends or graph.is_in_ring(bond):
            continue
        angles = [_bend(frames, starts[0], b, c), _bend(frames, ends[0], c, b)]
        if max(angles) > LINEAR_DEGREES:
            continue
        key = tuple(graph.colors[atom] for atom in (starts[0], b, c, ends[0]))
        if graph.colors[b] == graph.colors[c]:
            key = min(key, key[::-1])
        members[key] += [(a, b, c, d) for a, d in product(starts, ends)]
        folds[key] = lcm(_fold(graph, b, starts), _fold(graph, c, ends))
    return tuple(
        Torsion(_name(graph, quadruples), tuple(quadruples), folds[key])
        for key, quadruples in members.items()
    )


def dihedral_angles(
    positions: Positions, atoms: tuple[tuple[int, int, int, int], ...]
) -> Angles:
    """Return the angles in degrees, −180 to 180, of every quadruple in every frame.

    With b₁, b₂, b₃ the vectors a→b, b→c, c→d:
    φ = atan2(|b₂| b₁·(b₂×b₃), (b₁×b₂)·(b₂×b₃)), 0 for cis, positive where looking along
    b→c the far bond is clockwise of the near one (IUPAC).
    """
    a, b, c, d = (positions[:, places] for places in np.transpose(atoms))
    first, middle, last = b - a, c - b, d - c
    normal = np.cross(middle, last)
    length = np.linalg.norm(middle, axis=-1)
    y = length * np.sum(first * normal, axis=-1)
    x = np.sum(np.cross(first, middle) * normal, axis=-1)
    return np.degrees(np.arctan2(y, x))


def _ends(graph: BondGraph, atom: int, other: int) -> tuple[int, ...]:
    """Return the neighbors of highest rank, without the far end of the bond."""
    found = [end for end in graph.neighbors[atom] if end != other]
    highest = max((graph.colors[end] for end in found), default=-1)
    return tuple(end for end in found if graph.colors[end] == highest)


def _fold(graph: BondGraph, atom: int, ends: tuple[int, ...]) -> int:
    """Return how often a full turn brings this end onto itself: all of it is alike."""
    return len(ends) if len(ends) == len(graph.neighbors[atom]) - 1 else 1


def _bend(frames: Positions, a: int, b: int, c: int) -> float:
    """Return the median angle a–b–c in degrees."""
    one, two = frames[:, a] - frames[:, b], frames[:, c] - frames[:, b]
    cosine = np.sum(one * two, axis=-1)
    cosine /= np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1)
    return float(np.degrees(np.median(np.arccos(np.clip(cosine, -1.0, 1.0)))))


def _name(graph: BondGraph, quadruples: list[tuple[int, int, int, int]]) -> str:
    symbols = [f"{chemical_symbols[graph.numbers[i]]}{i}" for i in quadruples[0]]
    count = f" ×{len(quadruples)}" if len(quadruples) > 1 else ""
    return "–".join(symbols) + count


TRIES = 200
NEAR = 0.9
"""Share of the smallest distance in the reference that turned atoms keep."""

Structure = Float[np.ndarray, "atom 3"]


def turn_bond(
    positions: Structure, graph: BondGraph, bond: tuple[int, int], degrees: float
) -> Structure:
    """Return a structure with the far side of a bond turned about it.

    The torsion a–b–c–d about bond (b, c) grows by the angle (Rodrigues' formula).
    """
    b, c = bond
    moved = sorted(graph.side(c, without=bond))
    axis = positions[c] - positions[b]
    axis = axis / np.linalg.norm(axis)
    arms, angle = positions[moved] - positions[c], np.radians(degrees)
    along = np.outer(arms @ axis, axis)
    turned = positions.copy()
    turned[moved] = (
        positions[c]
        + along
        + np.cos(angle) * (arms - along)
        + np.sin(angle) * np.cross(axis, arms)
    )
    return turned


class TorsionTurner:
    """Turns all torsions of a molecule by random angles, and no atoms too near.

    Args:
        graph: bonds of the molecule.
        torsions: what turns.
        numbers: atomic numbers.
        frames: how near atoms that are not bonded come, from pairs of their kind.
    """

    def __init__(
        self,
        graph: BondGraph,
        torsions: Sequence[Torsion],
        numbers: Int[np.ndarray, " atom"],
        frames: Positions,
    ) -> None:
        quadruples = [atoms for torsion in torsions for atoms in torsion.atoms]
        self._graph = graph
        self._bonds = sorted({(b, c) for _, b, c, _ in quadruples})
        self._pairs = free_pairs(graph)
        smallest = distances(frames, self._pairs).min(axis=0)
        kinds = np.sort(numbers[self._pairs], axis=1)
        of_kind = [smallest[(kinds == kind).all(axis=1)].min() for kind in kinds]
        self._nearest = NEAR * np.array(of_kind)

    def __call__(self, start: Structure, rng: np.random.Generator) -> Structure:
        """Return a structure with all torsions at random angles."""
        for _ in range(TRIES):
            turned = start
            for bond in self._bonds:
                angle = rng.uniform(-180.0, 180.0)
                turned = turn_bond(turned, self._graph, bond, angle)
            if (distances(turned[None], self._pairs)[0] >= self._nearest).all():
                return turned
        return start  # too crowded to turn anything: as dispersed as the reference


def free_pairs(graph: BondGraph) -> Int[np.ndarray, "pair 2"]:
    """Return the pairs of atoms that are not bonded."""
    every = zip(*np.triu_indices(len(graph.numbers), k=1), strict=True)
    known = set(graph.bonds)
    free = [(int(i), int(j)) for i, j in every if (int(i), int(j)) not in known]
    return np.array(free, dtype=np.int64).reshape(-1, 2)
