"""Slabs that a slab is compared with: atoms swapped, an atom missing, pure metals."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from crack_md.workflows.stability.metals import Metal
from crack_md.workflows.surfaces.orientation import held_atoms
from crack_md.workflows.surfaces.slab import Slab

FIRST_SHELL = 1.2
"""Times the usual distance of nearest neighbors; in fcc the second shell is at 1.41."""
MOST_VARIANTS = 4
"""Swaps of an element, and vacancies of one: more of them repeat each other."""
CLOSE_PACKED = 12


@dataclass(frozen=True, eq=False)
class Variant:
    """A slab that differs from another one by an atom or two, or by its elements."""

    element: str
    """Which rises to the surface, is missing, or is all that the slab is made of."""
    kind: str
    """``swap``, ``vacancy`` or ``pure``."""
    slab: Slab
    label: str


def variants(slab: Slab) -> Iterator[Variant]:
    """Yield every swap with the layer beneath, and every vacancy of the surface.

    Of each element at most four, with different neighbors. Atoms that are held are
    never moved: their distances would not be those of their new elements.

    Args:
        slab: as it was prepared, its atoms on ideal places.
    """
    bonded = neighbors(slab.atoms)
    held = held_atoms(slab.atoms)
    upper = [int(i) for i in slab.surface if int(i) not in held]
    symbols = [str(symbol) for symbol in slab.atoms.symbols]
    seen: dict[tuple[str, str], list[object]] = {}

    def is_new(kind: str, element: str, mark: object) -> bool:
        marks = seen.setdefault((kind, element), [])
        if mark in marks or len(marks) >= MOST_VARIANTS:
            return False
        marks.append(mark)
        return True

    shells = [tuple(sorted(symbols[j] for j in np.flatnonzero(row))) for row in bonded]
    for i in upper:
        if is_new("vacancy", symbols[i], shells[i]):
            yield _vacancy(slab, i)
        for j in np.flatnonzero(bonded[i]):
            beneath = int(j) not in held and int(j) not in slab.surface
            if beneath and symbols[j] != symbols[i]:
                mark = (symbols[i], shells[i], shells[j])
                if is_new("swap", symbols[j], mark):
                    yield _swap(slab, i, int(j))


def neighbors(atoms: Atoms) -> NDArray[np.bool_]:
    """Return the (atom, atom) matrix of nearest neighbors, without the vacuum."""
    reach = FIRST_SHELL * bond_length(atoms)
    first, second = neighbor_list("ij", _open_above(atoms), reach)
    matrix = np.zeros((len(atoms), len(atoms)), dtype=bool)
    matrix[first, second] = True
    np.fill_diagonal(matrix, False)
    return matrix


def bond_length(atoms: Atoms) -> float:
    """Return the median over atoms of the distance in Å to the nearest one."""
    first, distance = neighbor_list("id", _open_above(atoms), 4.0)
    nearest = np.full(len(atoms), np.inf)
    np.minimum.at(nearest, first, distance)
    return float(np.median(nearest))


def _open_above(atoms: Atoms) -> Atoms:
    flat = atoms.copy()
    flat.pbc = [True, True, False]
    return flat


def _swap(slab: Slab, upper: int, lower: int) -> Variant:
    swapped = slab.atoms.copy()
    swapped.numbers[[upper, lower]] = swapped.numbers[[lower, upper]]
    up, down = slab.atoms.symbols[lower], slab.atoms.symbols[upper]
    label = f"{up} {lower} up, {down} {upper} down"
    return Variant(str(up), "swap", replace(slab, atoms=swapped), label)


def _vacancy(slab: Slab, missing: int) -> Variant:
    left = slab.atoms.copy()
    del left[missing]
    kept = np.arange(len(slab.atoms)) != missing
    surface = slab.surface[slab.surface != missing]
    surface = surface - (surface > missing)
    symbol = str(slab.atoms.symbols[missing])
    without = replace(slab, atoms=left, layer=slab.layer[kept], surface=surface)
    return Variant(symbol, "vacancy", without, f"without {symbol} {missing}")


def pure_variant(slab: Slab, metal: Metal) -> Variant:
    """Return the slab made of one metal, at that metal's own lattice constant."""
    pure = slab.atoms.copy()
    pure.numbers[:] = Atoms(metal.symbol).numbers[0]
    scale = metal.neighbor_A / bond_length(slab.atoms)
    pure.set_cell(pure.cell.array * scale, scale_atoms=True)
    return Variant(
        metal.symbol, "pure", replace(slab, atoms=pure), f"all {metal.symbol}"
    )


def stacking(atoms: Atoms) -> str | None:
    """Return ``fcc`` or ``hcp`` for a close-packed slab, else None.

    Of the twelve neighbors of an inner atom every one lies opposite another in fcc, and
    only the six of its own layer do in hcp.
    """
    apart = bond_length(atoms)
    first, vector = neighbor_list("iD", _open_above(atoms), FIRST_SHELL * apart)
    counts = np.bincount(first, minlength=len(atoms))
    inner = np.flatnonzero(counts == CLOSE_PACKED)
    if len(inner) == 0 or counts.max() > CLOSE_PACKED:
        return None
    opposite = []
    for index in inner:
        own = vector[first == index]
        missed = np.linalg.norm(own[:, None] + own[None], axis=2).min(axis=1)
        opposite.append(int((missed < 0.3 * apart).sum()))
    return "fcc" if np.mean(opposite) > 9 else "hcp"


def mean_energy(counts: Mapping[str, int], energies: Mapping[str, float]) -> float:
    """Return the energy of separate atoms or slabs, per atom of the composition."""
    total = sum(counts.values())
    return sum(count * energies[symbol] for symbol, count in counts.items()) / total
