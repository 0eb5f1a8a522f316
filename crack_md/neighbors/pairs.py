"""Tables of periodic neighbors: the rule a model was trained with, applied to atoms.

Two rules exist. `StrictNeighbors` keeps the ``count`` nearest inside a cutoff, as
public EquiformerV2 models do; `SmoothNeighbors` keeps all of them, for models whose
envelope takes every edge to zero at the cutoff. Images of the atom itself count too.

Rows are ordered by (distance rounded to 1e-5 Å, sender, shift). Ideal slabs tie at the
cut on every atom, and an unrounded order would flip when the structure is rotated.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import ase
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from vesin import NeighborList

from crack_md.errors import StructureError
from crack_md.graph import AtomGraph

RESOLUTION = 1e-5
"""Distances closer than this count as equal, in Å."""
SHORTEST_DISTANCE = 1e-2
"""Atoms closer than this are on top of each other and have no direction, in Å."""
GROWTH = 1.3
"""Factor from one search radius to the next."""
FARTHEST = 1e6
"""Largest coordinate in Å that is taken for a structure."""
THINNEST_CELL = 0.1
"""Smallest singular value of the periodic cell vectors in Å."""
WIDTH_STEP = 4
"""Smooth tables are padded to a multiple of this, so their shape seldom changes."""


@dataclass(frozen=True)
class StrictNeighbors:
    """The nearest ``count`` neighbors of every atom inside ``cutoff`` (Å)."""

    count: int = 20
    cutoff: float = 12.0


@dataclass(frozen=True)
class SmoothNeighbors:
    """All neighbors of every atom inside ``cutoff`` (Å)."""

    cutoff: float = 5.0


NeighborRule = StrictNeighbors | SmoothNeighbors


class Pairs(NamedTuple):
    """Directed neighbor pairs in the order of the table."""

    receiver: Int[np.ndarray, " pair"]
    sender: Int[np.ndarray, " pair"]
    shift: Int[np.ndarray, "pair 3"]
    distance: Float[np.ndarray, " pair"]
    """Rounded to `RESOLUTION`."""


def build_graph(
    atoms: ase.Atoms,
    rule: NeighborRule,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> AtomGraph:
    """Return the graph of one structure; join several with `batch_graphs`.

    The search runs in float64 on the CPU whatever `dtype` and `device` are, so the same
    structure has the same neighbors everywhere.

    Raises:
        StructureError: no atoms, positions or cell that are not finite, a periodic
            direction without a cell vector, or two atoms on top of each other.
    """
    _check_geometry(atoms)
    if isinstance(rule, StrictNeighbors):
        pairs, width = nearest_pairs(atoms, rule), rule.count
    else:
        pairs = all_pairs(atoms, rule.cutoff)
        widest = np.bincount(pairs.receiver, minlength=1).max()
        width = max(1, math.ceil(widest / WIDTH_STEP)) * WIDTH_STEP
    _check_distances(pairs)
    return _table(atoms, pairs, width, dtype=dtype, device=device)


def all_pairs(atoms: ase.Atoms, cutoff: float) -> Pairs:
    """Return all directed pairs closer than `cutoff` (Å), in the order of the table."""
    return _ordered(_search(atoms, cutoff))


def nearest_pairs(atoms: ase.Atoms, rule: StrictNeighbors) -> Pairs:
    """Return the pairs to the nearest ``rule.count`` neighbors of every atom.

    The radius starts small and grows only while some atom has found too few neighbors;
    atoms that have found enough are settled at the smaller radius.
    """
    settled: list[Pairs] = []
    unsettled = np.ones(len(atoms), dtype=bool)
    radius = min(_first_radius(atoms, rule.count), rule.cutoff)
    while True:
        # the margin admits every neighbor that ties with one at the radius
        found = _search(atoms, radius + 2 * RESOLUTION)
        found = _selected(found, found.distance <= radius + RESOLUTION / 2)
        per_atom = np.bincount(found.receiver, minlength=len(atoms))
        is_last = radius >= rule.cutoff
        complete = unsettled & ((per_atom >= rule.count) | is_last)
        rows = _ordered(_selected(found, complete[found.receiver]))
        settled.append(_selected(rows, _slots(rows, len(atoms)) < rule.count))
        unsettled &= ~complete
        if not unsettled.any():
            return _joined(settled)
        radius = min(radius * GROWTH, rule.cutoff)


def _search(atoms: ase.Atoms, cutoff: float) -> Pairs:
    """Return all pairs closer than `cutoff` (Å), in no particular order."""
    search = NeighborList(cutoff=cutoff, full_list=True)
    receiver, sender, shift, distance = search.compute(
        points=_without_gaps(atoms, cutoff),
        box=atoms.cell.array,
        periodic=atoms.pbc,
        quantities="ijSd",
    )
    return Pairs(
        receiver.astype(np.int64),
        sender.astype(np.int64),
        shift.astype(np.int64),
        np.rint(distance / RESOLUTION) * RESOLUTION,
    )


def _without_gaps(atoms: ase.Atoms, cutoff: float) -> Float[np.ndarray, "atom 3"]:
    """Return positions whose empty stretches are cut to just above `cutoff`, in Å.

    Only directions normal to every periodic one are touched, so all pairs inside the
    cutoff stay as they are. vesin 0.6 takes seconds for a slab with an atom at 1e4 Å
    and dies of a division by zero, with the process, when two atoms are 1e6 Å apart.
    """
    basis = np.linalg.svd(atoms.cell.array[atoms.pbc])[2]
    normals = basis[np.count_nonzero(atoms.pbc) :]
    heights = atoms.positions @ normals.T  # (atom, normal)
    order = np.argsort(heights, axis=0)
    gaps = np.diff(np.take_along_axis(heights, order, axis=0), axis=0)
    excess = np.zeros_like(heights)
    excess[1:] = np.cumsum(np.maximum(gaps - cutoff - 1.0, 0.0), axis=0)
    surplus = np.empty_like(heights)
    np.put_along_axis(surplus, order, excess, axis=0)
    return atoms.positions - surplus @ normals


def _ordered(pairs: Pairs) -> Pairs:
    keys = (*pairs.shift.T[::-1], pairs.sender, pairs.distance, pairs.receiver)
    return _selected(pairs, np.lexsort(keys))


def _selected(
    pairs: Pairs, chosen: Bool[np.ndarray, " n"] | Int[np.ndarray, " n"]
) -> Pairs:
    return Pairs(*(column[chosen] for column in pairs))


def _joined(parts: list[Pairs]) -> Pairs:
    joined = Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return _selected(joined, np.argsort(joined.receiver, kind="stable"))


def _slots(pairs: Pairs, n_atoms: int) -> Int[np.ndarray, " pair"]:
    """Return the place of every pair in the row of its receiver."""
    per_atom = np.bincount(pairs.receiver, minlength=n_atoms)
    first = np.cumsum(per_atom) - per_atom
    return np.arange(len(pairs.receiver)) - first[pairs.receiver]


def _first_radius(atoms: ase.Atoms, count: int) -> float:
    """Return the radius (Å) that holds `count` atoms at the mean density: a guess."""
    volume = np.prod(np.ptp(atoms.positions, axis=0) + 3.0)
    if atoms.pbc.all():
        volume = min(volume, atoms.cell.volume)
    radius = np.cbrt(3 * (count + 1) * volume / (4 * np.pi * len(atoms)))
    return float(np.clip(1.1 * radius, 2.0, 6.0))


def _table(
    atoms: ase.Atoms,
    pairs: Pairs,
    width: int,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> AtomGraph:
    n_atoms = len(atoms)
    place = pairs.receiver, _slots(pairs, n_atoms)
    neighbors = np.repeat(np.arange(n_atoms)[:, None], width, axis=1)
    cell_shift = np.zeros((n_atoms, width, 3))
    mask = np.zeros((n_atoms, width), dtype=bool)
    neighbors[place], cell_shift[place], mask[place] = pairs.sender, pairs.shift, True

    def real(values: np.ndarray) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return AtomGraph(
        positions=real(atoms.positions),
        atomic_numbers=torch.tensor(atoms.numbers, dtype=torch.long, device=device),
        cell=real(atoms.cell.array).unsqueeze(0),
        pbc=torch.tensor(atoms.pbc, device=device).unsqueeze(0),
        batch=torch.zeros(n_atoms, dtype=torch.long, device=device),
        neighbors=torch.tensor(neighbors, device=device),
        cell_shift=real(cell_shift),
        mask=torch.tensor(mask, device=device),
    )


def _check_geometry(atoms: ase.Atoms) -> None:
    if len(atoms) == 0:
        raise StructureError("the structure has no atoms; expected at least one")
    wrong = np.flatnonzero(~(np.abs(atoms.positions) < FARTHEST).all(axis=1))
    if wrong.size:
        raise StructureError(
            f"atom {wrong[0]} is at {atoms.positions[wrong[0]].tolist()}, expected "
            f"coordinates below {FARTHEST:.0e} Å; check the file, or the time step if "
            "it comes from a simulation"
        )
    if not np.isfinite(atoms.cell.array).all():
        raise StructureError(f"the cell {atoms.cell.tolist()} is not finite; set it")
    periodic = atoms.cell.array[atoms.pbc]
    if np.linalg.matrix_rank(periodic, tol=THINNEST_CELL) < len(periodic):
        raise StructureError(
            f"the structure is periodic along {atoms.pbc.tolist()} but its cell "
            f"{atoms.cell.tolist()} does not span these directions; set the cell, or "
            "set pbc to False where the structure ends"
        )


def _check_distances(pairs: Pairs) -> None:
    if pairs.distance.size and pairs.distance.min() < SHORTEST_DISTANCE:
        closest = pairs.distance.argmin()
        raise StructureError(
            f"atoms {pairs.receiver[closest]} and {pairs.sender[closest]} are "
            f"{pairs.distance[closest]:.4f} Å apart, expected at least "
            f"{SHORTEST_DISTANCE} Å; remove the duplicate atom or correct the cell"
        )
