"""Packed frames give the batches that joining single graphs gives."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from crack_md.data.dataset import LabelledStructure
from crack_md.graph import batch_graphs, edge_vectors
from crack_md.models.teachers import JacobianRows
from crack_md.neighbors import SmoothNeighbors, build_graph
from crack_md.training.data.frames import Frames
from tests.training.factories import CHANNELS, labelled

RULE = SmoothNeighbors(cutoff=4.0)
build = partial(build_graph, rule=RULE)


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames([labelled(number) for number in range(4)], RULE)


@pytest.mark.parametrize("chosen", [[0], [3, 1], [2, 0, 1, 2]])
def test_batch_equals_joined_graphs(frames: Frames, chosen: list[int]) -> None:
    batch = frames.batch(torch.tensor(chosen))
    joined = batch_graphs([build(frames.structures[index].atoms) for index in chosen])
    width = batch.graph.mask.shape[1]
    assert not joined.mask[:, width:].any()
    for name in ("positions", "atomic_numbers", "cell", "pbc", "batch"):
        assert torch.equal(getattr(batch.graph, name), getattr(joined, name)), name
    for name in ("neighbors", "cell_shift", "mask"):
        expected = getattr(joined, name)[:, :width]
        assert torch.equal(getattr(batch.graph, name), expected), name
        assert getattr(batch.graph, name).dtype == expected.dtype


def test_labels_follow_their_atoms(frames: Frames) -> None:
    batch = frames.batch(torch.tensor([3, 0]))
    three, zero = frames.structures[3], frames.structures[0]
    assert batch.labels.energy.tolist() == [three.energy, zero.energy]
    forces = np.concatenate([three.forces, zero.forces])
    assert np.allclose(batch.labels.forces.numpy(), forces, atol=1e-6)
    assert batch.labels.free.tolist() == [*three.free, *zero.free]
    assert batch.teacher is not None
    features = torch.from_numpy(
        np.concatenate([three.teacher.node_features, zero.teacher.node_features])
    )
    assert torch.equal(batch.teacher.node_features, features)
    assert frames.n_features == CHANNELS


def test_frames_without_a_teacher() -> None:
    frames = Frames([labelled(0, with_teacher=False), labelled(1)], RULE)
    assert frames.batch(torch.tensor([0])).teacher is None
    assert frames.n_features is None


def test_teachers_say_more_than_forces() -> None:
    generator = np.random.default_rng(0)

    def told(number: int, n_rows: int) -> LabelledStructure:
        frame = labelled(number)
        n_atoms = len(frame.atoms)
        assert frame.teacher is not None
        teacher = dataclasses.replace(
            frame.teacher,
            node_features=generator.normal(size=(n_atoms, 4, 2)).astype(np.float32),
            node_energy=generator.normal(size=n_atoms),
            jacobian=JacobianRows(
                generator.integers(n_atoms, size=n_rows),
                generator.integers(3, size=n_rows),
                generator.normal(size=(n_rows, n_atoms, 3)).astype(np.float32),
            ),
        )
        return dataclasses.replace(frame, teacher=teacher)

    frames = Frames([told(0, 3), told(1, 2), told(2, 4)], RULE)
    batch = frames.batch(torch.tensor([2, 1]))

    two, one = (frames.structures[index].teacher for index in (2, 1))
    n_first = len(frames.structures[2].atoms)
    assert batch.teacher is not None
    assert two is not None
    assert one is not None
    assert batch.teacher.node_features.shape[1:] == (4, 2)
    assert frames.n_features == 2
    assert batch.teacher.node_energy is not None
    expected = np.concatenate([two.node_energy, one.node_energy])
    assert np.array_equal(batch.teacher.node_energy.numpy(), expected)
    # two rows each: the fewest that any frame of the set has
    assert batch.jacobian is not None
    assert two.jacobian is not None
    assert one.jacobian is not None
    expected = np.stack([two.jacobian.atom[:2], one.jacobian.atom[:2] + n_first])
    assert np.array_equal(batch.jacobian.atom.numpy(), expected)
    values = np.concatenate([two.jacobian.values[:2], one.jacobian.values], axis=1)
    assert np.array_equal(batch.jacobian.values.numpy(), values)
    invariants = [frame.teacher.node_features[:, 0] for frame in frames.structures]  # type: ignore[union-attr,index]
    assert frames.features is not None
    assert np.array_equal(frames.features.numpy(), np.concatenate(invariants))


def test_everything_moves_to_the_device() -> None:
    frame = labelled(0)
    assert frame.teacher is not None
    n_atoms = len(frame.atoms)
    values = np.ones((1, n_atoms, 3), np.float32)
    teacher = dataclasses.replace(
        frame.teacher,
        node_energy=np.ones(n_atoms),
        jacobian=JacobianRows(np.array([1]), np.array([2]), values),
    )
    frames = Frames([dataclasses.replace(frame, teacher=teacher)], RULE)

    batch = frames.batch(torch.tensor([0]), device="meta")

    assert batch.teacher is not None
    assert batch.jacobian is not None
    parts = (batch.graph, batch.labels, batch.teacher, batch.jacobian)
    tensors = [value for part in parts for value in part if value is not None]
    assert {value.device.type for value in tensors} == {"meta"}


def test_features_are_not_copied() -> None:
    frame = labelled(0)
    assert frame.teacher is not None
    features = frame.teacher.node_features
    assert features is not None
    frames = Frames([frame], RULE)

    features += 1.0

    teacher = frames.batch(torch.tensor([0])).teacher
    assert teacher is not None
    assert np.array_equal(teacher.node_features.numpy(), features)


@pytest.mark.parametrize("cells", [0, 130, 40_000])
def test_atoms_that_wandered_through_many_cells_keep_their_edges(cells: int) -> None:
    one = labelled(0)
    wandered = dataclasses.replace(one, atoms=one.atoms.copy())
    wandered.atoms.positions[0] += cells * one.atoms.cell.array[0]
    graph = Frames([wandered, one], RULE).batch(torch.tensor([0])).graph
    assert graph.cell_shift.abs().max() >= cells
    width = graph.mask.shape[1]
    for atoms in (wandered.atoms, one.atoms):
        expected = edge_vectors(build(atoms))[:, :width]
        torch.testing.assert_close(
            edge_vectors(graph).norm(dim=-1).sort().values,
            expected.norm(dim=-1).sort().values,
            atol=1e-6,
            rtol=0,
        )
