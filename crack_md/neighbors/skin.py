"""Tables of neighbors for atoms that move little from one call to the next.

Atoms may have moved apart since a list was made. A pair whose vector was v is v·F + u_j
− u_i now, where F is the deformation of the cell and u what remains of each
displacement. With the singular values σ of F,

    σ_min |v| − s ≤ |v·F + u_j − u_i| ≤ σ_max |v| + s,

s being the sum of the two largest |u|: an atom and its own images move as one.

Candidates are found once and kept while it can be proved that none is missing; the rule
is applied to them anew in every call. Most proofs need the displacements alone, which
the host has, so a GPU is not waited for.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import ase
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from crack_md.errors import ConfigError
from crack_md.graph import AtomGraph
from crack_md.neighbors.candidates import (
    Candidates,
    SelectedNeighbors,
    Selector,
    find_candidates,
)
from crack_md.neighbors.search import (
    RESOLUTION,
    STEPS_PER_A,
    AllNeighbors,
    NeighborRule,
    SearchRule,
    StrictNeighbors,
    translations,
)
from crack_md.neighbors.table import SHORTEST_DISTANCE, build_graph, check_geometry


class Lattice(NamedTuple):
    """The periodic cell vectors, and what takes a position to multiples of them."""

    vectors: Float[np.ndarray, "periodic 3"]
    inverse: Float[np.ndarray, "3 periodic"]


class MotionBounds(NamedTuple):
    """Bounds on what happened to the distances between atoms."""

    hops: Float[np.ndarray, "atom periodic"]
    """Whole cell vectors by which atoms were moved: wrapping is no displacement."""
    spread: float
    """Most that two atoms can have moved against each other, but for the cell, in Å."""
    shrink: float
    stretch: float
    """Smallest and largest factor of the deformation on any length."""


def lattice_of(atoms: ase.Atoms, like: Lattice | None = None) -> Lattice:
    """Return the lattice of a structure: `like` itself if the vectors are the same."""
    vectors = atoms.cell.array[atoms.pbc]
    if like is not None and np.array_equal(vectors, like.vectors):
        return like
    return Lattice(vectors, np.linalg.pinv(vectors))


def motion_between(
    before: Float[np.ndarray, "atom 3"],
    now: Float[np.ndarray, "atom 3"],
    old: Lattice,
    new: Lattice,
) -> MotionBounds:
    """Return what happened since atoms were at positions `before` in lattice `old`."""
    shrink, stretch = 1.0, 1.0
    if old is not new:
        deformation = np.eye(3) + old.inverse @ (new.vectors - old.vectors)
        factors = np.linalg.svd(deformation, compute_uv=False)
        shrink, stretch = float(factors[-1]), float(factors[0])
        before = before @ deformation
    change = now - before
    hops = np.rint(change @ new.inverse)
    if hops.any():
        change -= hops @ new.vectors
    change -= change.mean(axis=0)  # a drift moves no atom against another
    squares = np.einsum("ij,ij->i", change, change)
    farthest = np.partition(squares, -2)[-2:] if len(squares) > 1 else np.zeros(1)
    return MotionBounds(hops, float(np.sqrt(farthest).sum()), shrink, stretch)


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
    rule: SearchRule,
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


def update_list(known: VerletList, atoms: ase.Atoms) -> tuple[VerletList, MotionBounds]:
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


THINNEST_SKIN = 1e-3
"""A list with less would hardly last for the positions it was made of, in Å."""
ROUND_OFF = 4 * RESOLUTION
"""What every proof leaves for rounded distances and ties, in Å."""


class NeighborSkin:
    """Answers as `build_graph` does, bit for bit, and keeps candidates between calls.

    Candidates are found anew when other atoms come, or when a neighbor might be missing
    because atoms moved too far against each other or the cell deformed too much. Atoms
    that were wrapped into the cell have not moved.

    Copies and pickles start without a list. Two threads must not call one object at a
    time.

    Args:
        rule: which pairs are neighbors.
        skin: how much farther than needed candidates are sought, in Å. Atoms may move
            by about half of that.
        dtype: of the edge vectors; positions and cell are float64.
        device: of the graphs.

    Raises:
        ConfigError: a skin that is negative or too thin to be of use.
    """

    def __init__(
        self,
        rule: SearchRule,
        skin: float,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not THINNEST_SKIN <= skin < float("inf"):
            raise ConfigError(
                f"a skin of {skin} Å; expected 0 or {THINNEST_SKIN} Å and more"
            )
        self.rule = rule
        self.skin = float(skin)
        self.dtype = dtype
        self.device = torch.device(device)
        self.n_builds = 0
        """How often candidates were found anew."""
        self._list: VerletList | None = None

    def __call__(self, atoms: ase.Atoms) -> AtomGraph:
        """Return the graph of one structure.

        Raises:
            StructureError: as `build_graph`.
        """
        check_geometry(atoms)
        # a list outlives the inference mode of the call that made it
        with torch.inference_mode(mode=False):
            graph = self._graph_from_list(atoms)
            if graph is None:
                self._list = new_list(
                    atoms, self.rule, self.skin, dtype=self.dtype, device=self.device
                )
                self.n_builds += 1
                graph = self._graph_from_list(atoms)
                assert graph is not None, "no atom has moved"
            return graph

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the settings alone."""
        make = partial(NeighborSkin, dtype=self.dtype, device=self.device)
        return make, (self.rule, self.skin)

    def _graph_from_list(self, atoms: ase.Atoms) -> AtomGraph | None:
        """Return the graph, if the candidates are certain to be enough for it."""
        if self._list is None or not self._list.is_of(atoms):
            return None
        known, motion = update_list(self._list, atoms)
        self._list = known
        certain = _is_certain(self.rule, self.skin, known.candidates, motion)
        strict = isinstance(self.rule, StrictNeighbors)
        if not certain and not (strict and motion.spread < self.skin):
            return None
        axes = torch.tensor(atoms.positions.T.copy(), device=self.device)
        table = known.selector(axes, known.move)
        if not certain and not _is_complete(known.candidates, motion, table):
            return None
        if not _are_apart(known.candidates, motion, table):
            build_graph(atoms, self.rule)  # raises, and names the atoms
        return AtomGraph(
            positions=axes.T.contiguous(),
            neighbors=table.neighbors,
            cell_shift=table.cell_shift,
            mask=table.mask,
            most_edges=table.n_edges,
            **known.constant,
        )


def graph_builder(
    rule: NeighborRule,
    skin: float,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Callable[[ase.Atoms], AtomGraph]:
    """Return what makes graphs of structures: `build_graph` itself if `skin` is 0.

    So it is where all atoms are neighbors: that leaves nothing to search for.
    """
    if skin == 0 or isinstance(rule, AllNeighbors):
        return partial(build_graph, rule=rule, dtype=dtype, device=device)
    return NeighborSkin(rule, skin, dtype=dtype, device=device)


def _is_certain(
    rule: NeighborRule, skin: float, candidates: Candidates, motion: MotionBounds
) -> bool:
    """Return whether the motion alone proves that no neighbor is missing."""
    lost = motion.spread + (1 - motion.shrink) * candidates.farthest
    if isinstance(rule, StrictNeighbors):
        # the last neighbor may have moved away while others came closer
        lost += motion.spread + max(motion.stretch - 1, 0) * candidates.farthest
    return lost < skin - ROUND_OFF


def _is_complete(
    candidates: Candidates, motion: MotionBounds, table: SelectedNeighbors
) -> bool:
    """Return whether all that is not listed is farther than every last neighbor."""
    reach = motion.shrink * candidates.radius - motion.spread - ROUND_OFF
    return bool((table.last.double() / STEPS_PER_A < reach).all())


def _are_apart(
    candidates: Candidates, motion: MotionBounds, table: SelectedNeighbors
) -> bool:
    """Return whether no two atoms are on top of each other."""
    nearest = motion.shrink * candidates.closest - motion.spread
    if nearest > SHORTEST_DISTANCE + ROUND_OFF:
        return True
    return bool((table.first >= round(SHORTEST_DISTANCE * STEPS_PER_A)).all())
