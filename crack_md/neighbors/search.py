"""Periodic pairs of atoms: rules, the search, its distances, and what breaks ties.

Ties at the cut are broken by distances rounded to `RESOLUTION`, so two ways to a table
agree on every bit only if they round the same numbers. Products and sums are taken one
by one, since a fused multiply-add, a matrix product or a reciprocal would round
otherwise on another device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

import ase
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from vesin import NeighborList

from crack_md.errors import MissingDependencyError

RESOLUTION = 1e-5
"""Distances closer than this count as equal, in Å."""
STEPS_PER_A = 1e5
"""Steps of `RESOLUTION` in one Å: exact in floating point, which 1e-5 is not."""
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


@dataclass(frozen=True)
class AllNeighbors:
    """All other atoms of a structure without periodic directions, however far.

    Rows are in the order of the atoms, so the table is the same wherever they are.
    """


SearchRule = StrictNeighbors | SmoothNeighbors
"""Rules whose neighbors have to be looked for."""
NeighborRule = SearchRule | AllNeighbors


def bucket_of_width(widest: int) -> int:
    """Return the width of a smooth table whose widest row has so many neighbors."""
    return max(1, math.ceil(widest / WIDTH_STEP)) * WIDTH_STEP


def last_step(radius: float) -> int:
    """Return the largest rounded distance, in steps, that is inside `radius` (Å)."""
    return math.floor(radius * STEPS_PER_A + 0.5)


def translations(
    shift: Float[Tensor, "3 ..."], cell: Float[np.ndarray, "3 3"]
) -> Float[Tensor, "3 ..."]:
    """Return whole lattice translations in Å; the first axis is x, y, z."""
    rows = cell.tolist()
    return torch.stack(
        [
            shift[0] * rows[0][axis]
            + shift[1] * rows[1][axis]
            + shift[2] * rows[2][axis]
            for axis in range(3)
        ]
    )


def lengths(
    axes: Float[Tensor, "3 atom"],
    receiver: Float[Tensor, "3 ..."],
    sender: Int[Tensor, " pair"],
    move: Float[Tensor, "3 ..."],
) -> Float[Tensor, "..."]:
    """Return |r_sender + move − r_receiver| of pairs in Å.

    Args:
        axes: x, y and z of all atoms.
        receiver: x, y and z of the receivers.
        sender: index of every sender.
        move: x, y and z of its lattice translation, in the shape of the result.
    """
    squares = []
    for axis, origin, offset in zip(axes, receiver, move, strict=True):
        part = axis.index_select(0, sender).view(offset.shape)
        part -= origin
        part += offset
        part *= part
        squares.append(part)
    return squares[0].add_(squares[1]).add_(squares[2]).sqrt_()


def pair_lengths(
    axes: Float[Tensor, "3 atom"],
    cell: Float[np.ndarray, "3 3"],
    receiver: Int[Tensor, " pair"],
    sender: Int[Tensor, " pair"],
    shift: Int[Tensor, "pair 3"],
) -> Float[Tensor, " pair"]:
    """Return the length of every pair in Å; `axes` are x, y and z of all atoms."""
    move = translations(shift.T.double().contiguous(), cell)
    return lengths(axes, axes.index_select(1, receiver), sender, move)


GROWTH = 1.3
"""Factor from one search radius to the next."""
MOST_BINS = 5e4
"""Half of what vesin 0.6 divides a structure into at most; see `_wide_enough`."""
MARGIN = 2 * RESOLUTION
"""How far a search reaches beyond what is asked of it (Å): for ties and round-off."""


class Pairs(NamedTuple):
    """Directed neighbor pairs in the order of the table."""

    receiver: Int[np.ndarray, " pair"]
    sender: Int[np.ndarray, " pair"]
    shift: Int[np.ndarray, "pair 3"]
    distance: Float[np.ndarray, " pair"]
    """In Å, rounded to `RESOLUTION`."""


def all_pairs(atoms: ase.Atoms, cutoff: float) -> Pairs:
    """Return all directed pairs closer than `cutoff` (Å), in the order of the table."""
    found = _search(atoms, cutoff + MARGIN)
    return _ordered(_selected(found, found.distance < cutoff))


def nearest_pairs(atoms: ase.Atoms, rule: StrictNeighbors) -> Pairs:
    """Return the pairs to the nearest ``rule.count`` neighbors of every atom.

    The radius starts small and grows only while some atom has found too few neighbors;
    atoms that have found enough are settled at the smaller radius.
    """
    settled: list[Pairs] = []
    unsettled = np.ones(len(atoms), dtype=bool)
    radius = min(first_radius(atoms, rule.count), rule.cutoff)
    while True:
        found = _search(atoms, radius + MARGIN)
        # whole groups of ties, or those left out would be missed
        inside = np.rint(found.distance * STEPS_PER_A) <= last_step(radius)
        found = _selected(found, inside & unsettled[found.receiver])
        per_atom = np.bincount(found.receiver, minlength=len(atoms))
        is_last = radius >= rule.cutoff
        complete = unsettled & ((per_atom >= rule.count) | is_last)
        rows = _ordered(_selected(found, complete[found.receiver]))
        settled.append(_selected(rows, slots(rows, len(atoms)) < rule.count))
        unsettled &= ~complete
        if not unsettled.any():
            return _joined(settled)
        radius = min(radius * GROWTH, rule.cutoff)


def _search(atoms: ase.Atoms, radius: float) -> Pairs:
    """Return all pairs closer than `radius` (Å), unordered, distances not rounded."""
    found = pairs_within(atoms, radius)
    axes = torch.from_numpy(atoms.positions.T.copy())
    tensors = map(torch.from_numpy, found)
    return Pairs(*found, pair_lengths(axes, atoms.cell.array, *tensors).numpy())


def pairs_within(
    atoms: ase.Atoms, radius: float
) -> tuple[
    Int[np.ndarray, " pair"], Int[np.ndarray, " pair"], Int[np.ndarray, "pair 3"]
]:
    """Return receiver, sender and shift of all pairs closer than `radius` (Å).

    They are in no particular order, those within round-off of the radius may be there
    or not, and where atoms are few in a wide cell there are some beyond it.
    """
    home = _cells_of(atoms)
    points = without_gaps(atoms, radius) - home @ atoms.cell.array
    reach = _wide_enough(atoms, points, radius)
    receiver, sender, shift = NeighborList(cutoff=reach, full_list=True).compute(
        points=points,
        box=atoms.cell.array,
        periodic=atoms.pbc,
        quantities="ijS",
    )
    return (
        receiver.astype(np.int64),
        sender.astype(np.int64),
        shift.astype(np.int64) + home[receiver] - home[sender],
    )


def _cells_of(atoms: ase.Atoms) -> Int[np.ndarray, "atom 3"]:
    """Return how many whole cells every atom is away from the one at the origin.

    vesin 0.6 sorts atoms into bins along the vectors of the cell and, where one of them
    is open and not normal to the others, takes minutes for atoms 1e5 cells apart.
    """
    cell = atoms.cell.array * atoms.pbc[:, None]
    cells = np.floor(atoms.positions @ np.linalg.pinv(cell)).astype(np.int64)
    return cells * atoms.pbc


def _wide_enough(
    atoms: ase.Atoms, points: Float[np.ndarray, "atom 3"], radius: float
) -> float:
    """Return the radius (Å) or a larger one, at which vesin can sort atoms into bins.

    With more than 1e5 bins it coarsens all directions alike: one that had a single bin
    has none then, and a division by zero ends the process.
    """
    periodic = atoms.cell.array[atoms.pbc]
    normals = np.linalg.svd(periodic)[2][len(periodic) :]
    heights = 1 / np.linalg.norm(np.linalg.pinv(periodic), axis=0)
    sides = np.concatenate([heights, np.ptp(points @ normals.T, axis=0)])
    while True:
        bins = np.maximum(sides / radius, 1.0)
        if bins.min() * min(1.0, np.cbrt(MOST_BINS / bins.prod())) >= 1:
            return radius
        radius *= GROWTH


def without_gaps(atoms: ase.Atoms, cutoff: float) -> Float[np.ndarray, "atom 3"]:
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
    """Return the pairs in the order of the table, distances rounded."""
    steps = np.rint(pairs.distance * STEPS_PER_A).astype(np.int64)
    columns = (pairs.receiver, steps, pairs.sender, *pairs.shift.T)
    order = lexicographic(columns)
    return _selected(pairs._replace(distance=steps * RESOLUTION), order)


def lexicographic(columns: Sequence[Int[np.ndarray, " n"]]) -> Int[np.ndarray, " n"]:
    """Return the order by the first column, then the second, and so on.

    No two entries may be equal in all columns. They are packed into one number, which
    sorts several times faster than NumPy's lexsort, where that number fits 63 bits.
    """
    if len(columns[0]) == 0:
        return np.arange(0)
    key, capacity = np.zeros(len(columns[0]), dtype=np.int64), 1
    for column in columns:
        lowest = column.min()
        span = int(column.max() - lowest) + 1
        capacity *= span
        if capacity >= 2**63:
            return np.lexsort(columns[::-1])
        key *= span
        key += column - lowest
    return np.argsort(key)


def _selected(
    pairs: Pairs, chosen: Bool[np.ndarray, " n"] | Int[np.ndarray, " n"]
) -> Pairs:
    index = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
    return Pairs(*(column.take(index, axis=0) for column in pairs))


def _joined(parts: list[Pairs]) -> Pairs:
    if len(parts) == 1:
        return parts[0]
    joined = Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return _selected(joined, np.argsort(joined.receiver, kind="stable"))


def slots(pairs: Pairs, n_atoms: int) -> Int[np.ndarray, " pair"]:
    """Return the place of every pair in the row of its receiver."""
    per_atom = np.bincount(pairs.receiver, minlength=n_atoms)
    first = np.cumsum(per_atom) - per_atom
    return np.arange(len(pairs.receiver)) - first[pairs.receiver]


def first_radius(atoms: ase.Atoms, count: int) -> float:
    """Return the radius (Å) that holds `count` atoms at the mean density: a guess."""
    volume = np.prod(np.ptp(atoms.positions, axis=0) + 3.0)
    if atoms.pbc.all():
        volume = min(volume, atoms.cell.volume)
    radius = np.cbrt(3 * (count + 1) * volume / (4 * np.pi * len(atoms)))
    return float(np.clip(1.1 * radius, 2.0, 6.0))


LARGE_STRUCTURE = 500
"""From so many atoms on, a search on the GPU is worth its start."""
FIRST_WIDTH = 64
"""Neighbors of one atom that are expected, before any have been counted."""


def should_search_on(device: torch.device, n_atoms: int) -> bool:
    """Return whether pairs are sought on the device, and not by vesin on the host."""
    large = device.type == "cuda" and n_atoms >= LARGE_STRUCTURE
    return large and find_spec("nvalchemiops") is not None


def pairs_on_device(
    atoms: ase.Atoms, radius: float, device: torch.device
) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"], Int[Tensor, "pair 3"]]:
    """Return receiver, sender and shift of all pairs closer than `radius` (Å).

    They are those of `pairs_within`, in another order.

    Raises:
        MissingDependencyError: nvalchemi-toolkit-ops is not installed.
    """
    try:
        from nvalchemiops.torch.neighbors import cell_list
    except ImportError as error:
        raise MissingDependencyError.of(
            "nvalchemi-toolkit-ops", extra="gpu", purpose="a neighbor search on the GPU"
        ) from error
    points, cell = _in_full_cell(atoms, radius)
    geometry = (
        torch.from_numpy(points).to(device),
        radius,
        torch.from_numpy(cell).unsqueeze(0).to(device),
        torch.tensor(atoms.pbc, device=device),
    )
    width = FIRST_WIDTH
    while True:
        # not its naive search, which was wrong for slabs before 0.5
        table, per_atom, shift = cell_list(*geometry, max_neighbors=width)
        widest = int(per_atom.max())
        if widest <= width:
            break
        width = widest
    slots = torch.arange(width, device=device)
    receiver, slot = (slots < per_atom.unsqueeze(1)).nonzero(as_tuple=True)
    return receiver, table[receiver, slot].long(), shift[receiver, slot].long()


def _in_full_cell(
    atoms: ase.Atoms, radius: float
) -> tuple[Float[np.ndarray, "atom 3"], Float[np.ndarray, "3 3"]]:
    """Return positions in Å, and a cell that has a vector along open directions too."""
    cell, periodic = atoms.cell.array.copy(), atoms.pbc
    points = without_gaps(atoms, radius)
    normals = np.linalg.svd(cell[periodic])[2][np.count_nonzero(periodic) :]
    heights = points @ normals.T
    # atoms outside would be found as well, but all in the outermost bins
    points = points - heights.min(axis=0) @ normals
    cell[~periodic] = normals * (np.ptp(heights, axis=0) + radius)[:, None]
    return points, cell
