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
    """One or several structures with their neighbor tables; never changed in place.

    Positions and cells of real structures are float64 whatever the precision of the
    model is: edge vectors are differences of them, and 1 meV/Å is lost where an atom at
    500 Å is rounded to float32 before it is subtracted.
    """

    positions: Float[Tensor, "atom 3"]
    """Å."""
    atomic_numbers: Int[Tensor, " atom"]
    cell: Float[Tensor, "structure 3 3"]
    """Å."""
    pbc: Bool[Tensor, "structure 3"]
    batch: Int[Tensor, " atom"]
    """Index of the structure that an atom belongs to; ascending."""
    neighbors: Int[Tensor, "atom slot"]
    """Sender index; an empty slot points at its own receiver."""
    cell_shift: Float[Tensor, "atom slot 3"]
    """Whole lattice translations of the sender, in the precision of the model."""
    mask: Bool[Tensor, "atom slot"]
    """True where a slot holds a neighbor."""
    most_edges: int | None = None
    """At most so many slots hold a neighbor, as the host knows; None if it does not."""

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms of all structures together."""
        return self.positions.shape[0]

    @property
    def n_structures(self) -> int:
        """Return the number of structures."""
        return self.cell.shape[0]


def edge_vectors(graph: AtomGraph) -> Float[Tensor, "atom slot 3"]:
    """Return r_sender + shift·cell − r_receiver in Å; zero in empty slots.

    The difference is taken in the precision of the positions, and rounded to that of
    the model afterwards.
    """
    # every row of the table uses its atom's cell
    cells = graph.cell.index_select(0, graph.batch).unsqueeze(1)
    shift = exact_product(graph.cell_shift, cells)
    sender = graph.positions.index_select(0, graph.neighbors.flatten())
    vectors = sender.view(shift.shape) + shift - graph.positions.unsqueeze(1)
    return vectors.to(graph.cell_shift.dtype)


def pair_vectors(
    graph: AtomGraph,
    senders: Int[Tensor, " edge"],
    receivers: Int[Tensor, " edge"],
    cell_shifts: Float[Tensor, "edge 3"],
) -> Float[Tensor, "edge 3"]:
    """Return the same numbers for some edges of a graph."""
    cells = graph.cell
    if graph.n_structures > 1:
        cells = cells.index_select(0, graph.batch.index_select(0, receivers))
    shift = exact_product(cell_shifts, cells)
    sender = graph.positions.index_select(0, senders)
    vectors = sender + shift - graph.positions.index_select(0, receivers)
    return vectors.to(cell_shifts.dtype)


def exact_product(
    vectors: Float[Tensor, "*vector 3"], matrices: Float[Tensor, "*#vector 3 3"]
) -> Float[Tensor, "*vector 3"]:
    """Return v·M of every vector, in the precision that the numbers have.

    It is no `matmul`, whose factors a GPU may round to TF32, and autocast to bfloat16:
    a lattice vector of 20 Å would be 0.01 Å or 0.1 Å off.
    """
    parts = vectors.unsqueeze(-1).unbind(dim=-2)
    rows = matrices.unbind(dim=-2)
    return parts[0] * rows[0] + parts[1] * rows[1] + parts[2] * rows[2]


def atoms_per_structure(graph: AtomGraph) -> Int[Tensor, " structure"]:
    """Return how many atoms each structure has."""
    # not bincount: it looks at the numbers first, and the host would wait
    ones = torch.ones_like(graph.batch)
    return ones.new_zeros(graph.n_structures).index_add(0, graph.batch, ones)


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
    non_blocking: bool = False,
) -> AtomGraph:
    """Return the graph on another device, its edge vectors in another precision."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device=device, non_blocking=non_blocking)

    return AtomGraph(
        positions=move(graph.positions),
        atomic_numbers=move(graph.atomic_numbers),
        cell=move(graph.cell),
        pbc=move(graph.pbc),
        batch=move(graph.batch),
        neighbors=move(graph.neighbors),
        cell_shift=move(graph.cell_shift).to(dtype=dtype),
        mask=move(graph.mask),
        most_edges=graph.most_edges,
    )


def batch_graphs(graphs: Sequence[AtomGraph]) -> AtomGraph:
    """Return one graph of all structures; rows are padded to the widest table."""
    if len(graphs) == 1:
        return graphs[0]
    width = max(graph.neighbors.shape[1] for graph in graphs)
    first_atom, first_structure = 0, 0
    padded = []
    for graph in graphs:
        padded.append(_shifted(_widened(graph, width), first_atom, first_structure))
        first_atom += graph.n_atoms
        first_structure += graph.n_structures
    counts = [graph.most_edges for graph in graphs]
    known = [count for count in counts if count is not None]
    columns = zip(*(graph[:-1] for graph in padded), strict=True)
    whole = AtomGraph(*map(torch.cat, columns))  # type: ignore[arg-type]
    return whole._replace(most_edges=sum(known) if len(known) == len(counts) else None)


def padded_graph(
    graph: AtomGraph, n_atoms: int, width: int, n_structures: int | None = None
) -> AtomGraph:
    """Return the graph with more atoms and slots, for code that wants fixed shapes.

    Added atoms have no neighbors and belong to one more structure without a cell, which
    is there even if no atom is added. Results of the others come first, as before.

    Args:
        graph: one or several structures.
        n_atoms: atoms of the new graph, at least those of the old one.
        width: slots of the new table, at least those of the old one.
        n_structures: room for so many structures beside the one of added atoms, at
            least those of the old graph; None for no more.
    """
    spare = (n_structures or graph.n_structures) - graph.n_structures + 1
    graph = _widened(graph, width)
    missing = n_atoms - graph.n_atoms
    own = torch.arange(graph.n_atoms, n_atoms, device=graph.batch.device)
    pad = torch.nn.functional.pad
    return AtomGraph(
        positions=pad(graph.positions, (0, 0, 0, missing)),
        # an element that occurs: a model may know no other
        atomic_numbers=torch.cat(
            [graph.atomic_numbers, graph.atomic_numbers[:1].expand(missing)]
        ),
        cell=pad(graph.cell, (0, 0, 0, 0, 0, spare)),
        pbc=pad(graph.pbc, (0, 0, 0, spare)),
        batch=pad(graph.batch, (0, missing), value=graph.n_structures),
        neighbors=torch.cat([graph.neighbors, own.unsqueeze(1).expand(-1, width)]),
        cell_shift=pad(graph.cell_shift, (0, 0, 0, 0, 0, missing)),
        mask=pad(graph.mask, (0, 0, 0, missing)),
        most_edges=graph.most_edges,
    )


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


def slots_to_work_on(graph: AtomGraph, *, compact: bool) -> Int[Tensor, " edge"] | None:
    """Return which slots become edges; None for all of them.

    Args:
        graph: with `most_edges`, compiled code has room for so many.
        compact: leave all empty slots out, which the host has to wait for.
    """
    n_slots = graph.mask.numel()
    if compact:
        filled = graph.mask.flatten().nonzero().squeeze(-1)
        # nothing is empty, as nearly always under the strict rule
        return None if filled.shape[0] == n_slots else filled
    most = graph.most_edges
    # eager code on a GPU works on rows of the table, in parts where it is large
    if not torch.compiler.is_compiling() or most is None or most >= n_slots:
        return None
    return choose_slots(graph.mask, most)


def choose_slots(mask: Bool[Tensor, "atom slot"], count: int) -> Int[Tensor, " chosen"]:
    """Return ``count`` slots in ascending order: those with a neighbor, and empty ones.

    Neither a shape nor the host depends on the mask. If more slots than ``count`` hold
    a neighbor, the last ones are lost: who asks knows that there are not.
    """
    flat = mask.flatten()
    empty = ~flat
    spare = count - flat.sum()
    taken = flat | (empty & (empty.cumsum(0) <= spare))
    place = torch.where(taken, taken.cumsum(0) - 1, count).clamp_max(count)
    slots = torch.arange(flat.shape[0], device=flat.device)
    return slots.new_zeros(count + 1).scatter(0, place, slots)[:count]
