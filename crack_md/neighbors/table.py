"""The table of one structure, made anew: the reference for every faster way."""

import ase
import numpy as np
import torch
from torch import Tensor

from crack_md.graph import AtomGraph
from crack_md.neighbors.checks import check_distances, check_geometry
from crack_md.neighbors.pairs import Pairs, all_pairs, nearest_pairs, slots
from crack_md.neighbors.rules import NeighborRule, StrictNeighbors, bucket_of_width


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
    if isinstance(rule, StrictNeighbors):
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
    )
