"""Bonds and torsions of a molecule, and its observables: values per frame.

Bonds come from distances and covalent radii. Atoms are alike when refinement of colors
cannot tell them apart (Weisfeiler and Leman, 1968): start from the element, then split
by the colors of the neighbors until nothing changes. Equal colors are necessary for a
symmetry of the graph, and sufficient in all but a few very regular cages.

Every bond outside rings whose two ends carry further atoms is one torsion. Its angle is
measured between the neighbors of highest rank (the heaviest, then those with the
heaviest neighbors). Where several are alike, as the three hydrogens of a methyl group,
all are measured and their values are pooled; so are the values of bonds that are alike.

An observable has one value per frame or several that symmetry or definition makes
alike: all C–H distances, the three hydrogens of a methyl group. These are pooled.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import lcm
from typing import Literal

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float, Int

from crack_md.data.bonds import bonded_pairs, distances
from crack_md.errors import StructureError

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


Kind = Literal["energy", "distance", "torsion"]
Values = Float[np.ndarray, "frame member"]
ALL_PAIRS = "all pairs"
DISTANCE_BIN_A = 0.02
TORSION_BINS = 36
ENERGY_BINS = 50


@dataclass(frozen=True)
class Observable:
    """One quantity of the molecule in the reference and in the sample."""

    name: str
    kind: Kind
    reference: Values
    sample: Float[np.ndarray, "sample member"]


@dataclass(frozen=True)
class MoleculeTopology:
    """What is found out about a molecule once: bonds, torsions, mirror symmetry."""

    graph: BondGraph
    torsions: tuple[Torsion, ...]
    pairs: dict[str, Int[np.ndarray, "pair 2"]]
    """By elements, such as C–H; each pair of atoms once, none with itself."""

    @property
    def is_achiral(self) -> bool:
        """Return whether a frame and its mirror image are equally probable."""
        return self.graph.is_achiral


def find_molecule(
    numbers: Int[np.ndarray, " atom"], frames: Positions
) -> MoleculeTopology:
    """Return bonds, torsions and pairs of a molecule.

    Raises:
        StructureError: the atoms are not those of one molecule.
    """
    graph = find_bonds(numbers, frames)
    return MoleculeTopology(graph, find_torsions(graph, frames), _pairs(numbers))


def geometric_observables(
    molecule: MoleculeTopology,
    reference: Positions,
    sample: Float[np.ndarray, "sample atom 3"],
) -> Iterator[Observable]:
    """Yield all distances together, distances by elements, and torsions.

    Torsions of achiral molecules come with those of the mirror images.
    """
    for name, pairs in molecule.pairs.items():
        both = (distances(frames, pairs) for frames in (reference, sample))
        yield Observable(name, "distance", *both)
    for torsion in molecule.torsions:
        both = (
            torsion_angles(frames, torsion, mirrored=molecule.is_achiral)
            for frames in (reference, sample)
        )
        yield Observable(torsion.name, "torsion", *both)


def torsion_angles(frames: Positions, torsion: Torsion, *, mirrored: bool) -> Values:
    """Return the angles in degrees of all members, and of their mirror images."""
    angles = dihedral_angles(frames, torsion.atoms)
    return np.concatenate([angles, -angles], axis=1) if mirrored else angles


def monitors(
    molecule: MoleculeTopology, positions: Positions
) -> dict[str, Float[np.ndarray, " frame"]]:
    """Return what has to converge, by the name of the observable it stands for.

    One number per frame that is blind to what symmetry makes alike: cos nφ of an n-fold
    torsion, meaned over its members, sin nφ too where the molecule is chiral; and for
    distances the radius of gyration in Å.
    """
    arms = positions - positions.mean(axis=1, keepdims=True)
    found = {"radius of gyration": np.sqrt(np.mean(np.sum(arms**2, axis=-1), axis=1))}
    for torsion in molecule.torsions:
        angles = np.radians(dihedral_angles(positions, torsion.atoms))
        found[torsion.name] = np.cos(torsion.fold * angles).mean(axis=1)
        if not molecule.is_achiral:
            found[f"{torsion.name}, sine"] = np.sin(torsion.fold * angles).mean(axis=1)
    return found


def bin_edges(
    observable: Observable,
) -> Float[np.ndarray, " edge"]:
    """Return the edges of its bins; what lies outside counts to the first or last."""
    if observable.kind == "torsion":
        return np.linspace(-180.0, 180.0, TORSION_BINS + 1)
    values = observable.reference
    if observable.kind == "distance":
        low, high = values.min() - 0.2, values.max() + 0.2
        count = int(np.ceil((high - low) / DISTANCE_BIN_A))
        return low + DISTANCE_BIN_A * np.arange(count + 1)
    low, high = energy_window(values)
    return np.linspace(low, high, ENERGY_BINS + 1)


def energy_window(energies: Float[np.ndarray, "..."]) -> tuple[float, float]:
    """Return the 0.1 % quantile less σ, and the 99.9 % quantile plus 2σ.

    With σ the standard deviation; energies have a longer tail upwards. Of a molecule of
    oscillators at the same temperature, longer sampled, about one frame in 10 000 lies
    beyond.
    """
    low, high = np.quantile(energies, [0.001, 0.999])
    sigma = float(np.std(energies))
    return float(low) - sigma, float(high) + 2.0 * sigma


def _pairs(
    numbers: Int[np.ndarray, " atom"],
) -> dict[str, Int[np.ndarray, "pair 2"]]:
    every = np.stack(np.triu_indices(len(numbers), k=1), axis=1)
    # hydrocarbons first: C, H, then by name
    order = {"C": 0, "H": 1}
    elements = sorted(
        {chemical_symbols[number] for number in numbers},
        key=lambda symbol: (order.get(symbol, 2), symbol),
    )
    names = [
        "–".join(
            sorted(
                (chemical_symbols[numbers[i]], chemical_symbols[numbers[j]]),
                key=elements.index,
            )
        )
        for i, j in every
    ]
    found = {ALL_PAIRS: every}
    for name in sorted(set(names)):
        found[name] = every[[other == name for other in names]]
    return found
