"""The neighbor table against numbers by hand, against ASE, and under symmetries."""

from itertools import product

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.neighborlist import neighbor_list
from scipy.spatial.transform import Rotation

from crack_md.errors import StructureError
from crack_md.graph import AtomGraph, edge_vectors
from crack_md.neighbors import (
    NeighborRule,
    Pairs,
    SmoothNeighbors,
    StrictNeighbors,
    all_pairs,
    build_graph,
    nearest_pairs,
)
from crack_md.neighbors.search import lexicographic
from tests.neighbors.structures import STRUCTURES, slab_with_oxygen

Row = list[tuple[int, ...]]


@pytest.fixture(params=STRUCTURES)
def atoms(request: pytest.FixtureRequest) -> ase.Atoms:
    return STRUCTURES[request.param].copy()


def table_rows(graph: AtomGraph) -> list[Row]:
    """Return (distance in 1e-5 Å, sender, shift) of every filled slot, in order."""
    lengths = torch.linalg.vector_norm(edge_vectors(graph), dim=-1)
    steps = torch.round(lengths * 1e5).long().unsqueeze(-1)
    columns = [steps, graph.neighbors.unsqueeze(-1), graph.cell_shift.long()]
    entries = torch.cat(columns, dim=-1)
    return [
        [tuple(entry) for entry in row[mask].tolist()]
        for row, mask in zip(entries, graph.mask, strict=True)
    ]


def ase_rows(atoms: ase.Atoms, rule: NeighborRule) -> list[Row]:
    """Return what the table has to hold, found by ASE and sorted in plain Python."""
    receiver, sender, shift, length = neighbor_list("ijSd", atoms, rule.cutoff)
    rows: list[Row] = [[] for _ in atoms]
    steps = np.rint(length * 1e5).astype(int).tolist()
    for i, j, s, d in zip(
        receiver.tolist(), sender.tolist(), shift.tolist(), steps, strict=True
    ):
        rows[i].append((d, j, *s))
    count = rule.count if isinstance(rule, StrictNeighbors) else None
    return [sorted(row)[:count] for row in rows]


def test_fcc_shells_are_where_geometry_puts_them():
    graph = build_graph(bulk("Pt", a=4.0), StrictNeighbors(20), dtype=torch.float64)
    lengths = torch.linalg.vector_norm(edge_vectors(graph), dim=-1)[0]
    # 12 neighbors at a/√2, 6 at a, and 2 of the 24 at a·√(3/2)
    expected = [8**0.5] * 12 + [4.0] * 6 + [24**0.5] * 2
    assert lengths.tolist() == pytest.approx(expected, abs=1e-12)
    # twelve tie at 2.83 Å and are ordered by shift
    shifts = graph.cell_shift[0, :12].tolist()
    assert shifts == sorted(shifts)
    assert shifts[0] == [-1.0, 0.0, 0.0]


@pytest.mark.parametrize("rule", [StrictNeighbors(12, 7.3), SmoothNeighbors(5.1)])
def test_table_equals_ase(atoms: ase.Atoms, rule: NeighborRule):
    graph = build_graph(atoms, rule, dtype=torch.float64)
    assert table_rows(graph) == ase_rows(atoms, rule)


@pytest.mark.parametrize("pbc", list(product([False, True], repeat=3)))
@pytest.mark.parametrize("open_vectors", ["kept", "zero"])
def test_mixed_periodicity_equals_ase(pbc: tuple[bool, ...], open_vectors: str):
    generator = np.random.default_rng(sum(pbc))
    for _ in range(10):
        cell = np.diag(generator.uniform(2.5, 6.0, 3)) + generator.uniform(
            -1, 1, (3, 3)
        )
        positions = generator.uniform(-1.5, 2.5, (5, 3)) @ cell
        if open_vectors == "zero":
            cell[~np.array(pbc)] = 0.0
        atoms = ase.Atoms("HCNOF", positions=positions, cell=cell, pbc=pbc)
        for rule in (StrictNeighbors(9, 6.0), SmoothNeighbors(4.0)):
            graph = build_graph(atoms, rule, dtype=torch.float64)
            assert table_rows(graph) == ase_rows(atoms, rule)
            assert not graph.cell_shift[..., ~np.array(pbc)].any()


@pytest.mark.parametrize("count", [1, 7, 20, 60])
def test_growing_search_equals_one_shot_search(atoms: ase.Atoms, count: int):
    rule = StrictNeighbors(count, cutoff=9.0)
    everything = all_pairs(atoms, rule.cutoff)
    seen: dict[int, int] = {}
    places = [seen.setdefault(i, n) for n, i in enumerate(everything.receiver.tolist())]
    kept = np.arange(len(places)) - np.array(places, dtype=int) < count
    expected = Pairs(*(column[kept] for column in everything))
    for found, wanted in zip(nearest_pairs(atoms, rule), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("widest", [10, 2**15, 2**40])
def test_packed_order_islexicographic(widest: int):
    generator = np.random.default_rng(widest)
    columns = generator.integers(-widest, widest, size=(3, 500))
    columns[0] = generator.integers(-2, 2, size=500)
    columns = np.unique(columns, axis=1)[:, generator.permutation(50)]
    rows = columns.T.tolist()
    assert [rows[n] for n in lexicographic(list(columns))] == sorted(rows)


def test_neighbor_exactly_at_the_cutoff():
    chain = ase.Atoms("Au", cell=[2.5, 0, 0], pbc=[True, False, False])
    assert build_graph(chain, StrictNeighbors(20, 5.0)).mask.sum() == 4
    # the envelope is zero there, so the smooth rule need not carry the edge
    assert build_graph(chain, SmoothNeighbors(5.0)).mask.sum() == 2


@pytest.mark.parametrize(
    ("rule", "width"), [(StrictNeighbors(20), 20), (SmoothNeighbors(5.0), 4)]
)
def test_lone_atom_has_only_empty_slots(rule: NeighborRule, width: int):
    graph = build_graph(ase.Atoms("O", [[1, 2, 3]]), rule)
    assert graph.neighbors.shape == (1, width)
    assert not graph.mask.any()
    assert not edge_vectors(graph).any()


def test_smooth_width_is_a_bucket():
    graph = build_graph(bulk("Pt", a=4.0), SmoothNeighbors(4.5))  # 12 + 6 neighbors
    assert graph.neighbors.shape == (1, 20)
    assert graph.mask.sum() == 18


def test_strict_width_depends_on_the_rule_alone(atoms: ase.Atoms):
    assert build_graph(atoms, StrictNeighbors(13)).mask.shape == (len(atoms), 13)


def test_types_and_values_of_the_graph():
    slab = slab_with_oxygen()
    graph = build_graph(slab, SmoothNeighbors())
    assert graph.positions.dtype == graph.cell.dtype == torch.float64
    assert graph.cell_shift.dtype == edge_vectors(graph).dtype == torch.float32
    assert graph.neighbors.dtype == graph.atomic_numbers.dtype == torch.int64
    assert graph.atomic_numbers.tolist() == slab.numbers.tolist()
    assert graph.pbc.tolist() == [[True, True, True]]
    assert graph.batch.tolist() == [0] * len(slab)
    np.testing.assert_allclose(graph.cell[0], slab.cell.array, rtol=1e-6)


RULES = [StrictNeighbors(20), SmoothNeighbors(5.0)]


def distance_rows(atoms: ase.Atoms, rule: NeighborRule) -> np.ndarray:
    graph = build_graph(atoms, rule, dtype=torch.float64)
    return torch.linalg.vector_norm(edge_vectors(graph), dim=-1).numpy()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rattle", [0.0, 0.05])
def test_rotation_keeps_the_table(rule: NeighborRule, rattle: float):
    slab = slab_with_oxygen(rattle)
    before = table_rows(build_graph(slab, rule, dtype=torch.float64))
    for rotation in Rotation.random(5, random_state=1).as_matrix():
        turned = slab.copy()
        turned.set_cell(slab.cell.array @ rotation.T)
        turned.positions = slab.positions @ rotation.T
        assert table_rows(build_graph(turned, rule, dtype=torch.float64)) == before


@pytest.mark.parametrize("rule", RULES)
def test_translation_and_wrapping_keep_distances(rule: NeighborRule):
    slab = slab_with_oxygen(0.05)
    moved = slab.copy()
    moved.positions += [3.1, -7.7, 11.3]
    moved.wrap()
    np.testing.assert_allclose(
        distance_rows(slab, rule), distance_rows(moved, rule), atol=1e-9
    )


@pytest.mark.parametrize(
    ("rule", "rattle"),
    [
        (StrictNeighbors(20), 0.05),
        (SmoothNeighbors(5.0), 0.05),
        (SmoothNeighbors(5.0), 0),
    ],
)
def test_permutation_and_supercell_repeat_distances(rule: NeighborRule, rattle: float):
    slab = slab_with_oxygen(rattle)
    before = distance_rows(slab, rule)
    order = np.random.default_rng(5).permutation(len(slab))
    np.testing.assert_allclose(
        distance_rows(slab[order], rule), before[order], atol=1e-9
    )
    repeated = distance_rows(slab * (2, 1, 2), rule)
    np.testing.assert_allclose(repeated, np.tile(before, (4, 1)), atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "pbc", [(False,) * 3, (True, False, False), (True, True, False)]
)
def test_atoms_very_far_apart(rule: NeighborRule, pbc: tuple[bool, ...]):
    # vesin alone takes minutes here, or dies of a floating point exception
    cell = np.diag(np.where(pbc, 30.0, 0.0))
    far = ase.Atoms("H2O2", cell=cell, pbc=pbc)
    sideways = 0.0 if pbc[1] else 9e5
    far.positions = [[0, 0, 0], [0, 0, 1], [0, 0, 9e5], [0, sideways, -9e5]]
    rows = table_rows(build_graph(far, rule, dtype=torch.float64))
    assert rows == [[(100_000, 1, 0, 0, 0)], [(100_000, 0, 0, 0, 0)], [], []]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": [[0, 0, np.nan], [0, 0, 1]]}, "atom 0 is at"),
        ({"positions": [[0, 0, 0], [0, 0, np.inf]]}, "atom 1 is at"),
        ({"positions": [[0, 0, 0], [0, 0, 2e7]]}, "below 1e\\+07 Å"),
        ({"positions": [[0, 0, 0], [0, 0, 5e-3]]}, "atoms 0 and 1 are 0.0050 Å apart"),
        ({"pbc": True}, "does not span these directions"),
        ({"pbc": True, "cell": [[3, 0, 0], [3, 0, 0], [0, 0, 3]]}, "does not span"),
        ({"cell": [np.nan, 3, 3]}, "is not finite"),
    ],
)
def test_impossible_structures_are_refused(change: dict[str, object], message: str):
    arguments = {"positions": [[0, 0, 0], [0, 0, 1]], **change}
    for rule in RULES:
        with pytest.raises(StructureError, match=message):
            build_graph(ase.Atoms("H2", **arguments), rule)


def test_empty_structure_is_refused():
    with pytest.raises(StructureError, match="no atoms"):
        build_graph(ase.Atoms(), SmoothNeighbors())


def test_atoms_are_left_as_they_were(atoms: ase.Atoms):
    before = atoms.copy()
    build_graph(atoms, StrictNeighbors())
    assert atoms == before
