"""The table of one structure, made anew: the reference for every faster way."""

import ase
import numpy as np
import torch
from torch import Tensor

from crack_md.errors import StructureError
from crack_md.graph import AtomGraph
from crack_md.neighbors.search import (
    AllNeighbors,
    NeighborRule,
    Pairs,
    StrictNeighbors,
    all_pairs,
    bucket_of_width,
    nearest_pairs,
    slots,
)

SHORTEST_DISTANCE = 1e-2
"""Atoms closer than this are on top of each other and have no direction, in Å."""
FARTHEST = 1e7
"""Largest coordinate in Å that is taken for a structure: float64 is exact to 2e-9."""
LONGEST_CELL = 1e4
"""Longest periodic cell vector in Å; no structure of atoms comes near."""
MOST_CELLS = 2**23
"""How many cells away from the origin float32 still counts one by one."""
THINNEST_CELL = 0.1
"""Smallest singular value of the periodic cell vectors in Å."""


def check_geometry(atoms: ase.Atoms) -> None:
    """Refuse structures in which no pair of atoms has a place.

    Raises:
        StructureError: no atoms, positions or cell that are not finite, or a periodic
            direction without a cell vector.
    """
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
    _check_lengths(atoms, periodic)


def _check_lengths(atoms: ase.Atoms, periodic: np.ndarray) -> None:
    lengths = np.linalg.norm(periodic, axis=1)
    if (lengths > LONGEST_CELL).any():
        raise StructureError(
            f"a periodic cell vector is {lengths.max():.3g} Å long, expected at most "
            f"{LONGEST_CELL:.0e} Å; check the unit of the cell, or set pbc to False "
            "along it"
        )
    hops = np.abs(atoms.positions).max() / lengths.min(initial=np.inf)
    if hops > MOST_CELLS:
        raise StructureError(
            f"an atom is {hops:.1e} cells away from the origin; wrap the structure "
            "into its cell"
        )


def check_distances(pairs: Pairs) -> None:
    """Refuse atoms on top of each other.

    Raises:
        StructureError: a pair is closer than `SHORTEST_DISTANCE`.
    """
    if pairs.distance.size and pairs.distance.min() < SHORTEST_DISTANCE:
        closest = pairs.distance.argmin()
        raise StructureError(
            f"atoms {pairs.receiver[closest]} and {pairs.sender[closest]} are "
            f"{pairs.distance[closest]:.4f} Å apart, expected at least "
            f"{SHORTEST_DISTANCE} Å; remove the duplicate atom or correct the cell"
        )


def molecule_pairs(atoms: ase.Atoms) -> Pairs:
    """Return all pairs of atoms, in the order of their numbers.

    Raises:
        StructureError: the structure is periodic.
    """
    if atoms.pbc.any():
        raise StructureError(
            f"{atoms.get_chemical_formula()} is periodic, and the model is one of a "
            "molecule in vacuum; set pbc to False if the cell is a box around it"
        )
    receiver, sender = np.nonzero(~np.eye(len(atoms), dtype=bool))
    vectors = atoms.positions[sender] - atoms.positions[receiver]
    shift = np.zeros((len(sender), 3), dtype=np.int64)
    return Pairs(receiver, sender, shift, np.linalg.norm(vectors, axis=1))


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

    Args:
        atoms: the structure.
        rule: which pairs are neighbors.
        dtype: of the edge vectors; positions and cell are float64 in any case.
        device: of the graph.

    Raises:
        StructureError: no atoms, positions or cell that are not finite, a periodic
            direction without a cell vector, or two atoms on top of each other.
    """
    check_geometry(atoms)
    if isinstance(rule, AllNeighbors):
        pairs, width = molecule_pairs(atoms), max(len(atoms) - 1, 1)
    elif isinstance(rule, StrictNeighbors):
        pairs, width = nearest_pairs(atoms, rule), rule.count
    else:
        pairs = all_pairs(atoms, rule.cutoff)
        widest = np.bincount(pairs.receiver, minlength=1).max()
        width = bucket_of_width(int(widest))
    check_distances(pairs)
    return _table(atoms, pairs, width, dtype=dtype, device=device)


def _table(
    atoms: ase.Atoms,
    pairs: Pairs,
    width: int,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> AtomGraph:
    n_atoms = len(atoms)
    place = pairs.receiver, slots(pairs, n_atoms)
    neighbors = np.repeat(np.arange(n_atoms)[:, None], width, axis=1)
    cell_shift = np.zeros((n_atoms, width, 3))
    mask = np.zeros((n_atoms, width), dtype=bool)
    neighbors[place], cell_shift[place], mask[place] = pairs.sender, pairs.shift, True

    def exact(values: np.ndarray) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=device)

    return AtomGraph(
        positions=exact(atoms.positions),
        atomic_numbers=torch.tensor(atoms.numbers, dtype=torch.long, device=device),
        cell=exact(atoms.cell.array).unsqueeze(0),
        pbc=torch.tensor(atoms.pbc, device=device).unsqueeze(0),
        batch=torch.zeros(n_atoms, dtype=torch.long, device=device),
        neighbors=torch.from_numpy(neighbors).to(device),
        cell_shift=torch.tensor(cell_shift, dtype=dtype, device=device),
        mask=torch.from_numpy(mask).to(device),
        most_edges=len(pairs.receiver),
    )
