"""A list of candidates together with the geometry it was made in, and that of now."""

from dataclasses import dataclass, replace

import ase
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from crack_md.neighbors.candidates import Candidates, find_candidates
from crack_md.neighbors.distances import translations
from crack_md.neighbors.motion import Lattice, Motion, lattice_of, motion_between
from crack_md.neighbors.rules import NeighborRule
from crack_md.neighbors.selection import Selector


@dataclass(frozen=True)
class VerletList:
    """Candidates that follow their atoms through wraps and changes of the cell."""

    candidates: Candidates
    positions: Float[np.ndarray, "atom 3"]
    """Where the atoms were, in Å; wrapped as they are now."""
    made_in: Lattice
    now_in: Lattice
    numbers: Int[np.ndarray, " atom"]
    pbc: np.ndarray
    cell: Float[np.ndarray, "3 3"]
    """The latest cell."""
    move: Float[Tensor, "3 atom candidate"]
    """Translation of every candidate in that cell, in Å; infinite in empty slots."""
    selector: Selector
    constant: dict[str, Tensor]
    """What the graphs of all calls share."""

    def is_of(self, atoms: ase.Atoms) -> bool:
        """Return whether elements and periodic directions are those of the list."""
        return np.array_equal(self.numbers, atoms.numbers) and np.array_equal(
            self.pbc, atoms.pbc
        )


def new_list(
    atoms: ase.Atoms,
    rule: NeighborRule,
    skin: float,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> VerletList:
    """Return a list for the atoms where they are."""
    candidates = find_candidates(atoms, rule, skin, device)
    lattice = lattice_of(atoms)
    numbers = torch.tensor(atoms.numbers, dtype=torch.long, device=device)
    return VerletList(
        candidates=candidates,
        positions=atoms.positions.copy(),
        made_in=lattice,
        now_in=lattice,
        numbers=atoms.numbers.copy(),
        pbc=atoms.pbc.copy(),
        cell=atoms.cell.array.copy(),
        move=_moves(candidates, atoms.cell.array),
        selector=Selector(rule, candidates, dtype),
        constant={
            "atomic_numbers": numbers,
            "cell": _cell_tensor(atoms, device),
            "pbc": torch.tensor(atoms.pbc, device=device).unsqueeze(0),
            "batch": torch.zeros_like(numbers),
        },
    )


def followed(known: VerletList, atoms: ase.Atoms) -> tuple[VerletList, Motion]:
    """Return the list for the wraps and cell of now, and what the atoms did since."""
    lattice = lattice_of(atoms, like=known.now_in)
    motion = motion_between(known.positions, atoms.positions, known.made_in, lattice)
    if motion.hops.any():
        known = _hopped(known, motion.hops)
    if not np.array_equal(known.cell, atoms.cell.array):
        cell = _cell_tensor(atoms, known.constant["cell"].device)
        known = replace(
            known,
            now_in=lattice,
            cell=atoms.cell.array.copy(),
            move=_moves(known.candidates, atoms.cell.array),
            constant={**known.constant, "cell": cell},
        )
    return known, motion


def _hopped(known: VerletList, hops: Float[np.ndarray, "atom periodic"]) -> VerletList:
    """Return the list after atoms hopped by whole cell vectors.

    Images of one sender stay in their order, since all their shifts change alike.
    """
    candidates = known.candidates
    per_axis = np.zeros((3, len(hops)))
    per_axis[known.pbc] = hops.T
    jump = torch.from_numpy(per_axis).to(candidates.shift.device)
    of_sender = jump.index_select(1, candidates.sender.flatten())
    shift = candidates.shift + jump.unsqueeze(-1)
    shift -= of_sender.view(shift.shape)
    candidates = candidates._replace(shift=shift)
    return replace(
        known,
        candidates=candidates,
        positions=known.positions + hops @ known.made_in.vectors,
        move=_moves(candidates, known.cell),
        selector=Selector(known.selector.rule, candidates, known.selector.dtype),
    )


def _moves(
    candidates: Candidates, cell: Float[np.ndarray, "3 3"]
) -> Float[Tensor, "3 atom candidate"]:
    move = translations(candidates.shift, cell)
    move[0].masked_fill_(~candidates.filled, torch.inf)
    return move


def _cell_tensor(atoms: ase.Atoms, device: torch.device) -> Float[Tensor, "1 3 3"]:
    cell = torch.tensor(atoms.cell.array, dtype=torch.float64, device=device)
    return cell.unsqueeze(0)
