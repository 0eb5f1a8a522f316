"""The search for periodic pairs on a GPU, by nvalchemi-toolkit-ops (extra `gpu`)."""

from importlib.util import find_spec

import ase
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from crack_md.errors import MissingDependencyError
from crack_md.neighbors.pairs import without_gaps

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
