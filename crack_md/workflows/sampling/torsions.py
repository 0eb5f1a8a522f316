"""Torsions of a molecule, found from its bond graph, and their angles.

Every bond outside rings whose two ends carry further atoms is one torsion. Its angle is
measured between the neighbors of highest rank (the heaviest, then those with the
heaviest neighbors). Where several are alike, the three hydrogens of a methyl group or
the two ortho carbons of a phenyl ring, all are measured and their values are pooled;
so are the values of bonds that are alike.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from math import lcm

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.workflows.sampling.bond_graph import BondGraph, Positions

LINEAR_DEGREES = 165.0
"""Beyond this angle at an end, as in alkynes, a torsion has no meaning."""

Angles = Float[NDArray[np.float64], "frame member"]


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
