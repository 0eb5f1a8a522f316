"""Packed frames give the batches that joining single graphs gives."""

from functools import partial

import numpy as np
import pytest
import torch

from crack_md.graph import batch_graphs
from crack_md.neighbors import SmoothNeighbors, build_graph
from crack_md.training.frames import Frames
from tests.training.factories import CHANNELS, labelled

build = partial(build_graph, rule=SmoothNeighbors(cutoff=4.0))


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames([labelled(number) for number in range(4)], build)


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
    frames = Frames([labelled(0, with_teacher=False), labelled(1)], build)
    assert frames.batch(torch.tensor([0])).teacher is None
    assert frames.n_features is None
