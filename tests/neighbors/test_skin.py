"""The skin against the reference, bit for bit, and how seldom it starts anew."""

import copy
import pickle
from collections.abc import Callable

import ase
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet

from crack_md.errors import ConfigError, StructureError
from crack_md.graph import AtomGraph
from crack_md.neighbors import (
    NeighborRule,
    NeighborSkin,
    SmoothNeighbors,
    StrictNeighbors,
    build_graph,
    graph_builder,
)
from tests.neighbors.structures import STRUCTURES, random_structure, slab_with_oxygen

RULES = [StrictNeighbors(20), StrictNeighbors(7, 4.5), SmoothNeighbors(5.0)]


def assert_same(found: AtomGraph, expected: AtomGraph) -> None:
    if found.most_edges is not None:  # only rules without a fixed width count them
        assert found.most_edges == expected.most_edges
    fields = zip(AtomGraph._fields[:-1], found[:-1], expected[:-1], strict=True)
    for name, one, other in fields:
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name
        assert one.is_contiguous(), name


def assert_follows(skin: NeighborSkin, atoms: ase.Atoms) -> AtomGraph:
    found = skin(atoms)
    assert_same(found, build_graph(atoms, skin.rule, dtype=skin.dtype))
    return found


@pytest.fixture(params=RULES, ids=str)
def rule(request: pytest.FixtureRequest) -> NeighborRule:
    return request.param


def pair_at(distance: float) -> ase.Atoms:
    return ase.Atoms("H2", [[0, 0, 0], [0, 0, distance]])


def test_a_pair_comes_and_goes_and_is_found_in_time() -> None:
    skin = NeighborSkin(SmoothNeighbors(5.0), skin=0.5)
    # distance, neighbors, how often the list has been made
    steps = [
        (5.6, 0, 1),  # too far for the list
        (5.2, 0, 1),  # nearer by 0.4
        (5.101, 0, 1),  # by 0.499: the last that is certain
        (5.099, 0, 2),
        (4.9, 2, 2),
        (5.3, 0, 2),
        (4.999, 2, 2),
    ]
    for distance, neighbors, builds in steps:
        assert skin(pair_at(distance)).mask.sum() == neighbors
        assert skin.n_builds == builds


def test_the_nearest_change_places_in_one_list() -> None:
    """An atom between two others at 3.0 and 3.4 Å has one neighbor."""
    skin = NeighborSkin(StrictNeighbors(1, 6.0), skin=0.5)
    row = ase.Atoms("HHeLi", [[0, 0, -3.0], [0, 0, 0], [0, 0, 3.4]])
    for height, nearest, builds in [(0, 0, 1), (0.19, 0, 1), (0.21, 2, 1)]:
        row.positions[1, 2] = height
        assert skin(row).neighbors[1].tolist() == [nearest]
        assert skin.n_builds == builds


def test_an_unlisted_atom_that_becomes_the_nearest_is_found() -> None:
    skin = NeighborSkin(StrictNeighbors(1, 6.0), skin=0.5)
    row = ase.Atoms("HHeLi", [[0, 0, -3.0], [0, 0, 0], [0, 0, 3.6]])
    assert skin(row).neighbors[1].tolist() == [0]
    row.positions[1, 2] = 0.31
    assert skin(row).neighbors[1].tolist() == [2]
    assert skin.n_builds == 2


@pytest.mark.parametrize(
    ("rule", "neighbors"), [(StrictNeighbors(20, 5.0), 4), (SmoothNeighbors(5.0), 2)]
)
def test_neighbor_exactly_at_the_cutoff(rule: NeighborRule, neighbors: int) -> None:
    chain = ase.Atoms("Au", cell=[2.5, 0, 0], pbc=[True, False, False])
    graph = assert_follows(NeighborSkin(rule, skin=0.5), chain)
    assert graph.mask.sum() == neighbors


@pytest.mark.parametrize("rule", [StrictNeighbors(1100, 17.0), SmoothNeighbors(17.0)])
def test_more_neighbors_than_a_short_number_counts(rule: NeighborRule) -> None:
    graph = assert_follows(NeighborSkin(rule, skin=0.5), bulk("Pt", a=3.97))
    assert graph.mask.sum() >= 1100


def walk(atoms: ase.Atoms, generator: np.random.Generator, step: float) -> None:
    """Move all atoms a little, and wrap or unwrap them now and then."""
    atoms.positions += generator.normal(scale=step, size=atoms.positions.shape)
    chance = generator.random()
    if chance < 0.1:
        atoms.wrap()
    elif chance < 0.2:
        hops = generator.integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
        atoms.positions += hops @ atoms.cell.array


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("step", [0.01, 0.1])
def test_walks_of_all_structures(name: str, step: float, rule: NeighborRule) -> None:
    atoms = STRUCTURES[name].copy()
    generator = np.random.default_rng(7)
    skin = NeighborSkin(rule, skin=0.5, dtype=torch.float64)
    for _ in range(8):
        assert_follows(skin, atoms)
        walk(atoms, generator, step)
    assert skin.n_builds == 1 or step > 0.01


@pytest.mark.parametrize("seed", range(25))
def test_random_structures_walk_and_deform(seed: int, rule: NeighborRule) -> None:
    generator = np.random.default_rng(seed)
    atoms = random_structure(generator)
    skin = NeighborSkin(rule, skin=generator.uniform(0.1, 1.5))
    for _ in range(12):
        assert_follows(skin, atoms)
        walk(atoms, generator, step=0.02)
        if generator.random() < 0.5:
            strain = np.eye(3) + generator.normal(scale=0.003, size=(3, 3))
            carried = bool(generator.integers(2))
            atoms.set_cell(atoms.cell.array @ strain, scale_atoms=carried)


def test_dynamics_seldom_start_anew(rule: NeighborRule) -> None:
    atoms = slab_with_oxygen(rattle=0.05)[:-1]
    atoms.calc = EMT()
    generator = np.random.default_rng(0)  # some 500 K
    atoms.set_velocities(0.02 * generator.normal(size=(len(atoms), 3)))
    skin = NeighborSkin(rule, skin=0.5)
    dynamics = VelocityVerlet(atoms, 2 * units.fs)
    for _ in range(200):
        dynamics.run(1)
        if generator.random() < 0.05:
            atoms.wrap()
        assert_follows(skin, atoms)
    assert 2 <= skin.n_builds <= 10


@pytest.mark.parametrize("name", ["slab", "hexagonal bulk", "one-atom cell"])
def test_ideal_structures_tie_as_in_the_reference(
    name: str, rule: NeighborRule
) -> None:
    atoms = STRUCTURES[name] * (2, 2, 1)
    skin = NeighborSkin(rule, skin=0.5)
    for shift in ([0, 0, 0], [0.3, -0.2, 5.0], [11.0, 0, 0]):
        moved = atoms.copy()
        moved.positions += shift
        assert_follows(skin, moved)
        moved.wrap()
        assert_follows(skin, moved)
        moved.wrap(center=(0, 0, 0))
        assert_follows(skin, moved)
    assert skin.n_builds == 1


def test_gas_with_too_few_neighbors_for_the_rule() -> None:
    generator = np.random.default_rng(0)
    positions = generator.uniform(0, 60, size=(40, 3))
    gas = ase.Atoms("Ar40", positions, cell=[60, 60, 60], pbc=[True, True, False])
    skin = NeighborSkin(StrictNeighbors(20), skin=1.0)
    for _ in range(30):
        graph = assert_follows(skin, gas)
        assert not graph.mask[:, -1].any()
        walk(gas, generator, step=0.02)
    assert skin.n_builds <= 3


def test_a_drift_or_one_image_of_itself_is_no_displacement(rule: NeighborRule) -> None:
    skin = NeighborSkin(rule, skin=0.5)
    slab, lone = slab_with_oxygen(rattle=0.05), bulk("Pt", a=3.97)
    for atoms in (slab, lone):
        builds = skin.n_builds
        for _ in range(20):
            atoms.positions += [0.37, -0.21, 0.9]
            assert_follows(skin, atoms)
        assert skin.n_builds == builds + 1


def test_an_atom_that_moves_alone_has_the_whole_skin() -> None:
    skin = NeighborSkin(SmoothNeighbors(5.0), skin=0.5)
    slab = slab_with_oxygen(rattle=0.05) * (2, 2, 1)
    for height, builds in [(0.0, 1), (0.45, 1), (0.55, 2)]:
        moved = slab.copy()
        moved.positions[-1, 2] += height
        assert_follows(skin, moved)
        assert skin.n_builds == builds


def strained(atoms: ase.Atoms, strain: np.ndarray, *, carried: bool) -> ase.Atoms:
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=carried)
    return atoms


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("largest", [1e-6, 0.005, 0.05, 0.3])
def test_deformed_cells(rule: NeighborRule, largest: float, carried: bool) -> None:
    slab = slab_with_oxygen(rattle=0.05)
    skin = NeighborSkin(rule, skin=0.5)
    generator = np.random.default_rng(3)
    for _ in range(10):
        strain = generator.uniform(-largest, largest, size=(3, 3))
        assert_follows(skin, strained(slab, strain, carried=carried))
    assert skin.n_builds == 1 or largest > 0.01
    assert skin.n_builds > 1 or largest < 0.1


def test_hops_in_a_deformed_cell_are_no_displacement(rule: NeighborRule) -> None:
    slab = slab_with_oxygen(rattle=0.05)
    skin = NeighborSkin(rule, skin=0.5)
    assert_follows(skin, slab)
    slab.set_cell(slab.cell.array * 1.005, scale_atoms=True)
    generator = np.random.default_rng(0)
    for _ in range(3):
        hops = generator.integers(-90, 90, size=(len(slab), 3))
        slab.positions += hops @ slab.cell.array
        assert_follows(skin, slab)
    assert skin.n_builds == 1


def test_compression_brings_neighbors_only_until_the_list_is_short() -> None:
    """In a chain of 1 Å, compressed to 0.9 Å, atoms from 5.5 Å come within 4.95 Å."""
    chain = ase.Atoms("H", cell=[1.0, 0, 0], pbc=[True, False, False])
    skin = NeighborSkin(SmoothNeighbors(4.95), skin=0.6)  # lists five on either side
    for length, neighbors, builds in [(1.0, 8, 1), (0.98, 10, 1), (0.82, 12, 2)]:
        chain.cell[0, 0] = length
        assert assert_follows(skin, chain).mask.sum() == neighbors
        assert skin.n_builds == builds


def test_open_directions_of_the_cell_are_no_deformation(rule: NeighborRule) -> None:
    slab = slab_with_oxygen(rattle=0.05)
    slab.pbc = [True, True, False]
    skin = NeighborSkin(rule, skin=0.5)
    for height in (20.0, 30.0, 0.0):
        slab.cell[2, 2] = height
        assert assert_follows(skin, slab).cell[0, 2, 2] == height
    assert skin.n_builds == 1


CHANGES: dict[str, Callable[[ase.Atoms], ase.Atoms]] = {
    "an atom more": lambda atoms: atoms + ase.Atoms("H", [[2.0, 2.0, 17.0]]),
    "an atom less": lambda atoms: atoms[:-1],
    "another element": lambda atoms: (
        ase.Atoms("Au", atoms.positions[:1], cell=atoms.cell, pbc=atoms.pbc) + atoms[1:]
    ),
    "atoms swapped": lambda atoms: atoms[[1, 0, *range(2, len(atoms))]],
    "other order": lambda atoms: atoms[::-1],
    "other periodicity": lambda atoms: ase.Atoms(atoms, pbc=[True, True, False]),
    "no periodicity": lambda atoms: ase.Atoms(atoms, pbc=False),
    "another structure": lambda _: molecule("CH3CH2OH"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_atoms_start_anew(rule: NeighborRule, change: str) -> None:
    slab = slab_with_oxygen(rattle=0.05)
    skin = NeighborSkin(rule, skin=0.5)
    for atoms in (slab, CHANGES[change](slab), slab):
        assert_follows(skin, atoms)
    assert skin.n_builds == 3


@pytest.mark.parametrize(
    "positions",
    [
        [[0, 0, 0], [0, 0, np.nan]],
        [[0, 0, 0], [np.inf, 0, 0]],
        [[0, 0, 0.196], [0, 0, 0.2]],
    ],
)
def test_impossible_positions_are_refused_alike(
    positions: list[list[float]], rule: NeighborRule
) -> None:
    skin = NeighborSkin(rule, skin=1.0)
    good, bad = ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.2]]), ase.Atoms("OH", positions)
    for known in (False, True):
        if known:
            assert_follows(skin, good)
        with pytest.raises(StructureError) as expected:
            build_graph(bad, rule)
        with pytest.raises(StructureError) as found:
            skin(bad)
        assert str(found.value) == str(expected.value)
        assert_follows(skin, good)


def test_impossible_cells_are_refused_alike(rule: NeighborRule) -> None:
    skin = NeighborSkin(rule, skin=0.5)
    crystal = bulk("Pt", a=3.97)
    assert_follows(skin, crystal)
    for cell in (np.full((3, 3), np.nan), np.ones((3, 3))):
        flat = crystal.copy()
        flat.cell[:] = cell
        with pytest.raises(StructureError, match="cell"):
            skin(flat)
    with pytest.raises(StructureError, match="no atoms"):
        skin(ase.Atoms())
    assert_follows(skin, crystal)


def test_graphs_keep_their_numbers_when_atoms_move_on(rule: NeighborRule) -> None:
    slab = slab_with_oxygen(rattle=0.05)
    skin = NeighborSkin(rule, skin=0.5, dtype=torch.float64)
    first = skin(slab)
    kept = AtomGraph(*(tensor.clone() for tensor in first[:-1]), first.most_edges)
    slab.positions[::2] += slab.cell.array[0]
    slab.rattle(0.03, seed=9)
    slab.set_cell(slab.cell.array * 1.001)
    skin(slab)
    assert_same(first, kept)
    assert skin.n_builds == 1


def test_lists_outlive_inference_mode(rule: NeighborRule) -> None:
    skin = NeighborSkin(rule, skin=0.5)
    with torch.inference_mode():
        skin(slab_with_oxygen())
    graph = skin(slab_with_oxygen())
    assert not any(tensor.is_inference() for tensor in graph[:-1])
    assert skin.n_builds == 1


def test_copies_and_pickles_start_without_a_list(rule: NeighborRule) -> None:
    skin = NeighborSkin(rule, skin=0.4, dtype=torch.float64)
    slab = slab_with_oxygen(rattle=0.05)
    assert_follows(skin, slab)
    for twin in (copy.deepcopy(skin), pickle.loads(pickle.dumps(skin))):
        assert (twin.rule, twin.skin, twin.dtype) == (rule, 0.4, torch.float64)
        assert twin.n_builds == 0
        assert_follows(twin, slab)


@pytest.mark.parametrize("skin", [1e-4, -1.0, np.nan, np.inf])
def test_a_skin_has_a_thickness(skin: float) -> None:
    with pytest.raises(ConfigError, match=r"expected 0 or 0\.001 Å"):
        graph_builder(SmoothNeighbors(), skin)


@pytest.mark.parametrize("skin", [0.0, 0.5])
def test_builders_answer_alike_with_and_without_a_skin(
    skin: float, rule: NeighborRule
) -> None:
    build = graph_builder(rule, skin, dtype=torch.float64)
    assert isinstance(build, NeighborSkin) is (skin > 0)
    slab = slab_with_oxygen()
    assert_same(build(slab), build_graph(slab, rule, dtype=torch.float64))
