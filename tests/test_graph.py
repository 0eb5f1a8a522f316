"""The graph's geometry by hand, and batches against their parts."""

import ase
import pytest
import torch
from ase.build import bulk, molecule

from crack_md.graph import (
    atoms_per_structure,
    batch_graphs,
    choose_slots,
    edge_vectors,
    graph_to,
    padded_graph,
    sum_over_structures,
)
from crack_md.neighbors import SmoothNeighbors, StrictNeighbors, build_graph
from tests.models.test_host_waits import waits
from tests.rounding import Tf32Products


def three_graphs():
    rule = SmoothNeighbors(4.0)
    structures = [bulk("Cu", cubic=True), ase.Atoms("O"), molecule("H2O")]
    return [build_graph(atoms, rule, dtype=torch.float64) for atoms in structures]


def test_edge_points_from_receiver_to_sender():
    pair = ase.Atoms("OH", [[0.5, 0, 0], [1.5, 0.25, 0]])
    graph = build_graph(pair, StrictNeighbors(2))
    assert edge_vectors(graph)[0, 0].tolist() == [1.0, 0.25, 0.0]
    assert edge_vectors(graph)[1, 0].tolist() == [-1.0, -0.25, 0.0]


def test_edge_to_an_image_uses_rows_of_the_cell():
    cell = [[2.0, 0.5, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]]
    chain = ase.Atoms("Au", cell=cell, pbc=[True, False, False])
    graph = build_graph(chain, StrictNeighbors(2, 3.0))
    assert edge_vectors(graph)[0].tolist() == [[-2.0, -0.5, 0.0], [2.0, 0.5, 0.0]]


def test_lattice_vectors_are_never_rounded():
    """In bfloat16 19.9 Å would be 19.875 Å, in TF32 19.906 Å."""
    chain = ase.Atoms("Au", cell=[19.9, 9.0, 9.0], pbc=[True, False, False])
    graph = build_graph(chain, StrictNeighbors(2, 20.0), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = edge_vectors(graph)
    with Tf32Products():
        on_a_gpu = edge_vectors(graph)
    for vectors in (trained, on_a_gpu):
        assert vectors.dtype == torch.float32
        assert vectors[0, 1].tolist() == [torch.tensor(19.9).item(), 0.0, 0.0]


def test_every_edge_has_its_reverse():
    graph = three_graphs()[0]
    forward = edge_vectors(graph)[graph.mask]
    backward = -forward
    distances = torch.cdist(forward, backward).min(dim=1).values
    assert distances.max() < 1e-12


def test_batch_shapes_and_sizes():
    graphs = three_graphs()
    batch = batch_graphs(graphs)
    assert (batch.n_atoms, batch.n_structures) == (8, 3)
    assert batch.batch.tolist() == [0, 0, 0, 0, 1, 2, 2, 2]
    assert atoms_per_structure(batch).tolist() == [4, 1, 3]
    assert batch.mask.shape[1] == max(graph.mask.shape[1] for graph in graphs)
    assert batch.pbc.tolist() == [[True] * 3, [False] * 3, [False] * 3]


def test_batch_keeps_every_edge_of_its_parts():
    graphs = three_graphs()
    batch = batch_graphs(graphs)
    vectors, first = edge_vectors(batch), 0
    for graph in graphs:
        own = slice(first, first + graph.n_atoms)
        width = graph.mask.shape[1]
        torch.testing.assert_close(vectors[own, :width], edge_vectors(graph))
        assert not vectors[own, width:].any()
        assert not batch.mask[own, width:].any()
        first += graph.n_atoms


def test_batch_of_batches_is_the_batch():
    one, two, three = three_graphs()
    nested = batch_graphs([batch_graphs([one, two]), three])
    whole = batch_graphs([one, two, three])
    assert nested.most_edges == whole.most_edges
    for tensor, expected in zip(nested[:-1], whole[:-1], strict=True):
        assert torch.equal(tensor, expected)


def test_batch_of_one_is_the_graph():
    graph = three_graphs()[0]
    for tensor, expected in zip(batch_graphs([graph])[:-1], graph[:-1], strict=True):
        assert torch.equal(tensor, expected)


def test_sums_count_a_structure_once():
    batch = batch_graphs(three_graphs())
    ones = torch.ones(batch.n_atoms, 2)
    assert sum_over_structures(ones, batch).tolist() == [[4, 4], [1, 1], [3, 3]]
    assert sum_over_structures(ones[:, 0], batch).tolist() == [4, 1, 3]


def test_precision_changes_edge_vectors_only():
    graph = three_graphs()[0]
    single = graph_to(graph, dtype=torch.float32)
    assert single.cell_shift.dtype == edge_vectors(single).dtype == torch.float32
    assert single.positions.dtype == single.cell.dtype == torch.float64
    assert single.neighbors.dtype == torch.int64
    assert single.mask.dtype == torch.bool
    assert graph.positions.dtype == torch.float64


def test_gradient_reaches_positions_and_cell():
    graph = three_graphs()[0]
    positions = graph.positions.clone().requires_grad_()
    cell = graph.cell.clone().requires_grad_()
    moved = graph._replace(positions=positions, cell=cell)
    edge_vectors(moved).square().sum().backward()
    assert positions.grad is not None
    assert cell.grad is not None
    # all neighbors of an ideal crystal balance, the cell feels them all
    assert positions.grad.abs().max() == pytest.approx(0.0, abs=1e-9)
    assert cell.grad.abs().max() > 1.0


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (3, [1, 3, 4]),  # those with a neighbor alone
        (4, [0, 1, 3, 4]),
        (5, [0, 1, 2, 3, 4]),
        (6, [0, 1, 2, 3, 4, 5]),
        (2, [1, 3]),  # too little room: the last ones are lost
    ],
)
def test_slots_with_neighbors_come_with_the_first_empty_ones(
    count: int, expected: list[int]
) -> None:
    mask = torch.tensor([[False, True, False], [True, True, False]])
    assert choose_slots(mask, count).tolist() == expected


def test_choosing_slots_makes_no_host_wait() -> None:
    mask = three_graphs()[0].mask
    with waits() as found:
        choose_slots(mask, int(mask.numel()) - 1)
    assert found == []


def test_graphs_know_how_many_edges_they_have() -> None:
    graphs = three_graphs()
    counts = [int(graph.mask.sum()) for graph in graphs]
    assert [graph.most_edges for graph in graphs] == counts
    whole = batch_graphs(graphs)
    assert whole.most_edges == sum(counts)
    assert padded_graph(whole, 40, whole.mask.shape[1] + 2).most_edges == sum(counts)
    unknown = batch_graphs([graphs[0], graphs[1]._replace(most_edges=None)])
    assert unknown.most_edges is None
    assert graph_to(whole, dtype=torch.float32).most_edges == sum(counts)
