"""The one value type that models read: atoms with their table of neighbors.

Conventions of the whole package
    energies eV, lengths Å, times fs, temperatures K; every other quantity has a suffix
    cells have lattice vectors as rows; stress has ASE's sign and Voigt order
    a neighbor j of atom i sits at ``r_j + shift · cell``; the edge vector points from
    the receiver i to the sender j, as in the public EquiformerV2 code

The graph is a dense ``[atom, slot]`` table with a mask, not an edge list. Its shape
depends on the number of atoms and the row width alone, so attention is a softmax over a
row, aggregation is a sum over a row, and neither needs a scatter.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class AtomGraph(NamedTuple):
    """One or several structures with their neighbor tables; never changed in place."""

    positions: Float[Tensor, "atom 3"]
    atomic_numbers: Int[Tensor, " atom"]
    cell: Float[Tensor, "structure 3 3"]
    pbc: Bool[Tensor, "structure 3"]
    batch: Int[Tensor, " atom"]
    """Index of the structure that an atom belongs to; ascending."""
    neighbors: Int[Tensor, "atom slot"]
    """Sender index; an empty slot points at its own receiver."""
    cell_shift: Float[Tensor, "atom slot 3"]
    """Whole lattice translations of the sender."""
    mask: Bool[Tensor, "atom slot"]
    """True where a slot holds a neighbor."""

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms of all structures together."""
        return self.positions.shape[0]

    @property
    def n_structures(self) -> int:
        """Return the number of structures."""
        return self.cell.shape[0]


def edge_vectors(graph: AtomGraph) -> Float[Tensor, "atom slot 3"]:
    """Return r_sender + shift·cell − r_receiver in Å; zero in empty slots."""
    # (atom, slot, 3) @ (atom, 3, 3): every row of the table uses its atom's cell
    shift = torch.matmul(graph.cell_shift, graph.cell[graph.batch])
    sender = graph.positions[graph.neighbors]
    return sender + shift - graph.positions.unsqueeze(1)


def atoms_per_structure(graph: AtomGraph) -> Int[Tensor, " structure"]:
    """Return how many atoms each structure has."""
    return torch.bincount(graph.batch, minlength=graph.n_structures)


def sum_over_structures(
    values: Float[Tensor, "atom ..."], graph: AtomGraph
) -> Float[Tensor, "structure ..."]:
    """Return the sum of a per-atom quantity for every structure."""
    shape = (graph.n_structures, *values.shape[1:])
    return values.new_zeros(shape).index_add(0, graph.batch, values)


def graph_to(
    graph: AtomGraph,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> AtomGraph:
    """Return the graph on another device, its real numbers in another precision."""
    return AtomGraph(
        *(
            tensor.to(
                device=device, dtype=dtype if tensor.is_floating_point() else None
            )
            for tensor in graph
        )
    )


def batch_graphs(graphs: Sequence[AtomGraph]) -> AtomGraph:
    """Return one graph of all structures; rows are padded to the widest table."""
    width = max(graph.neighbors.shape[1] for graph in graphs)
    first_atom, first_structure = 0, 0
    padded = []
    for graph in graphs:
        padded.append(_shifted(_widened(graph, width), first_atom, first_structure))
        first_atom += graph.n_atoms
        first_structure += graph.n_structures
    return AtomGraph(*(torch.cat(column) for column in zip(*padded, strict=True)))


def _widened(graph: AtomGraph, width: int) -> AtomGraph:
    missing = width - graph.neighbors.shape[1]
    if missing == 0:
        return graph
    own = torch.arange(graph.n_atoms, device=graph.neighbors.device).unsqueeze(1)
    shift = graph.cell_shift.new_zeros(graph.n_atoms, missing, 3)
    return graph._replace(
        neighbors=torch.cat([graph.neighbors, own.expand(-1, missing)], dim=1),
        cell_shift=torch.cat([graph.cell_shift, shift], dim=1),
        mask=torch.nn.functional.pad(graph.mask, (0, missing)),
    )


def _shifted(graph: AtomGraph, first_atom: int, first_structure: int) -> AtomGraph:
    return graph._replace(
        batch=graph.batch + first_structure, neighbors=graph.neighbors + first_atom
    )
