"""Which atoms of a molecule are bonded, and which are alike.

Bonds come from distances and covalent radii. Atoms are alike when refinement of colors
cannot tell them apart (Weisfeiler and Leman, 1968): start from the element, then split
by the colors of the neighbors until nothing changes. Equal colors are necessary for a
symmetry of the graph, and sufficient in all but a few very regular cages.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crack_md.data.bonds import bonded_pairs
from crack_md.errors import StructureError

PYRAMIDS = frozenset({15, 16, 33, 34, 51, 52})
"""P, S and below keep a pyramid of three different neighbors for hours; N does not."""

Positions = Float[NDArray[np.float64], "frame atom 3"]


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


def find_bonds(
    numbers: Int[NDArray[np.int64], " atom"], frames: Positions
) -> BondGraph:
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
