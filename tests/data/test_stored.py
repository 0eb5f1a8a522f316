"""A store gives the structures that the files have, and trains the same student."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from crack_md.data import stored
from crack_md.data.columns import RECORD
from crack_md.data.dataset import LabelledStructure, read_dataset
from crack_md.data.stored import StoredStructures, join, store_datasets, take
from crack_md.errors import DataError
from crack_md.models.teachers import JacobianRows
from crack_md.neighbors import SmoothNeighbors, StrictNeighbors
from crack_md.training.config import check_config
from crack_md.training.data.frames import Frames
from crack_md.training.data.source import read_training_data
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import train
from tests.training.factories import labelled, recipe, write_dataset


def told(number: int) -> LabelledStructure:
    """Return a structure with all that a teacher may say."""
    frame = labelled(number)
    random = np.random.default_rng(number)
    n_atoms, n_rows = len(frame.atoms), 2 + number % 2
    assert frame.teacher is not None
    teacher = dataclasses.replace(
        frame.teacher,
        node_features=random.normal(size=(n_atoms, 4, 3)).astype(np.float32),
        node_energy=random.normal(size=n_atoms),
        jacobian=JacobianRows(
            random.integers(n_atoms, size=n_rows),
            random.integers(3, size=n_rows),
            random.normal(size=(n_rows, n_atoms, 3)).astype(np.float32),
        ),
    )
    return dataclasses.replace(frame, teacher=teacher)


def assert_same(one: LabelledStructure, other: LabelledStructure) -> None:
    assert one.atoms == other.atoms
    assert (one.energy, one.group, one.kind, one.split) == (
        other.energy,
        other.group,
        other.kind,
        other.split,
    )
    assert np.array_equal(one.forces, other.forces)
    assert np.array_equal(one.free, other.free)
    assert (one.teacher is None) == (other.teacher is None)
    if one.teacher is None or other.teacher is None:
        return
    assert one.teacher.energy == other.teacher.energy
    for name in ("forces", "node_features", "node_energy"):
        ours, theirs = getattr(one.teacher, name), getattr(other.teacher, name)
        assert (ours is None and theirs is None) or np.array_equal(ours, theirs), name
    if one.teacher.jacobian is not None:
        assert other.teacher.jacobian is not None
        for name in ("atom", "axis", "values"):
            ours = getattr(one.teacher.jacobian, name)
            assert np.array_equal(ours, getattr(other.teacher.jacobian, name)), name


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stored, "CHUNK", 3)  # several chunks, the last one shorter
    return write_dataset(tmp_path / "set.aselmdb", [told(n) for n in range(8)])


def test_every_structure_is_the_one_of_the_file(path: Path, tmp_path: Path) -> None:
    known = read_dataset(path)
    for _ in range(2):  # written, and opened
        (found,) = store_datasets([path], tmp_path / "store").values()
        assert len(found) == 8
        for ours, theirs in zip(found.structures, known.structures, strict=True):
            assert_same(ours, theirs)
        assert found.metadata == known.metadata
        assert found.elements == known.elements
        assert found.has_features
        assert found.n_unsplit == known.n_unsplit == 0
        for split in ("train", "val", "test"):
            pairs = zip(found.select(split), known.select(split), strict=True)
            for ours, theirs in pairs:
                assert_same(ours, theirs)


def test_parts_of_a_store_are_parts_of_its_files(path: Path, tmp_path: Path) -> None:
    (found,) = store_datasets([path], tmp_path / "store").values()
    whole, known = found.structures, read_dataset(path).structures
    chosen = join([take(whole, [5, 0]), whole[6:], take(whole, [0])])
    assert isinstance(chosen, StoredStructures)
    for ours, number in zip(chosen, (5, 0, 6, 7, 0), strict=True):
        assert_same(ours, known[number])
    assert_same(whole[-1], known[-1])
    bare = whole.without_teacher()
    assert bare[2].teacher is None
    assert bare[2].atoms == known[2].atoms
    with pytest.raises(IndexError):
        whole[8]


def test_sets_of_a_run_share_one_store(path: Path, tmp_path: Path) -> None:
    more = write_dataset(tmp_path / "more.db", [told(n) for n in (20, 21)])
    found = store_datasets([path, more], tmp_path / "store")
    assert [len(one) for one in found.values()] == [8, 2]
    assert_same(found[more].structures[1], read_dataset(more).structures[1])


def test_a_stopped_start_goes_on(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_datasets([path], tmp_path / "store", report=stop)
    record = json.loads((tmp_path / "store" / RECORD).read_text())
    assert record["done"] == 6
    told_of: list[int] = []
    (found,) = store_datasets(
        [path], tmp_path / "store", report=told_of.append
    ).values()
    assert told_of == [8]
    for ours, theirs in zip(
        found.structures, read_dataset(path).structures, strict=True
    ):
        assert_same(ours, theirs)


def test_a_file_that_changed_is_read_again(path: Path, tmp_path: Path) -> None:
    store_datasets([path], tmp_path / "store")
    path.unlink()
    write_dataset(path, [told(n) for n in (3, 4)])
    (found,) = store_datasets([path], tmp_path / "store").values()
    assert len(found) == 2
    assert_same(found.structures[0], told(3))


def test_labels_that_only_some_have_are_refused(path: Path, tmp_path: Path) -> None:
    bare = [labelled(n, with_teacher=False) for n in range(3)]
    more = write_dataset(tmp_path / "more.aselmdb", bare)
    with pytest.raises(DataError, match=r"some structures have teacher_.*label all"):
        store_datasets([path, more], tmp_path / "store")


@pytest.mark.parametrize(
    "rule", [SmoothNeighbors(cutoff=4.0), StrictNeighbors(cutoff=6.0, count=12)]
)
@pytest.mark.parametrize("periodic", [False, True])
def test_batches_of_a_store_are_those_of_memory(
    path: Path, tmp_path: Path, rule: SmoothNeighbors | StrictNeighbors, periodic: bool
) -> None:
    (found,) = store_datasets([path], tmp_path / "store").values()
    chosen = found.structures.take(np.array([6, 1, 2, 1]))
    known = [read_dataset(path).structures[number] for number in (6, 1, 2, 1)]
    order = torch.tensor([2, 0, 3])
    for _ in range(2):  # edges are written, and opened
        ours = Frames(chosen, rule, periodic=periodic)
        theirs = Frames(known, rule, periodic=periodic)
        assert torch.equal(ours.sizes, theirs.sizes)
        assert ours.n_features == theirs.n_features == 3
        assert ours.features is not None
        assert theirs.features is not None
        assert torch.equal(ours.features, theirs.features)
        one, other = ours.batch(order), theirs.batch(order)
        for part in ("graph", "labels", "teacher", "jacobian"):
            pairs = zip(getattr(one, part), getattr(other, part), strict=True)
            for value, expected in pairs:
                assert (value is None) == (expected is None)
                if value is not None:
                    assert value.dtype == expected.dtype
                    assert torch.equal(value, expected)


def test_structures_without_neighbors_have_batches(tmp_path: Path) -> None:
    alone = [
        LabelledStructure(
            Atoms("Cu", [[x, 0, 0]]),
            float(x),
            np.zeros((1, 3)),
            None,
            f"atom-{x}",
            "given",
            np.ones(1, dtype=bool),
            "train",
        )
        for x in range(3)
    ]
    path = write_dataset(
        tmp_path / "atoms.db", [*alone, labelled(1, with_teacher=False)]
    )
    (found,) = store_datasets([path], tmp_path / "store").values()
    frames = Frames(found.structures, SmoothNeighbors(cutoff=4.0))
    assert frames.batch(torch.tensor([0, 2])).graph.mask.shape == (2, 0)
    both = frames.batch(torch.tensor([3, 2])).graph
    assert both.mask.sum(dim=1).tolist()[-1] == 0
    assert both.neighbors[-1].unique().tolist() == [len(both.mask) - 1]


def test_a_run_on_a_store_is_the_run_in_memory(path: Path, tmp_path: Path) -> None:
    more = write_dataset(tmp_path / "more.aselmdb", [told(n) for n in (20, 21)])
    losses = {}
    for name in ("memory", "store"):
        tree = recipe(path, tmp_path / name)
        tree["data"]["replay"] = [{"path": str(more), "repeats": 2}]
        tree["data"]["largest_force"] = 50.0
        if name == "store":
            tree["data"]["store"] = str(tmp_path / "frames")
        train(check_config(tree, source="test"), quiet=True)
        records = RunFolder(tmp_path / name).metrics()
        losses[name] = [one["loss"] for one in records if "loss" in one]
    assert len(losses["store"]) == 10
    assert losses["store"] == losses["memory"]


def test_a_store_may_move_between_starts(path: Path, tmp_path: Path) -> None:
    tree = recipe(path, tmp_path / "run", max_steps=4)
    tree["data"]["store"] = str(tmp_path / "first")
    train(check_config(tree, source="test"), quiet=True)
    tree["run"]["max_steps"] = 6
    tree["data"]["store"] = str(tmp_path / "second")
    assert train(check_config(tree, source="test"), quiet=True).step == 6


def test_labels_of_all_frames_do_not_fit_a_store(path: Path, tmp_path: Path) -> None:
    tree = recipe(path, tmp_path / "run")
    tree["data"]["store"] = str(tmp_path / "store")
    tree["losses"] = [{"kind": "output", "energy_weight": 1.0, "force_weight": 1.0}]
    tree["teacher"] = {"kind": "online", "spec": "emt", "labels": "start"}
    with pytest.raises(DataError, match=r"ask at every step \(labels: step\)"):
        read_training_data(check_config(tree, source="test"))


def test_a_teacher_is_asked_of_frames_in_a_store(path: Path, tmp_path: Path) -> None:
    losses = {}
    for name in ("memory", "store"):
        tree = recipe(path, tmp_path / name, max_steps=3)
        tree["losses"] = [{"kind": "output", "energy_weight": 1.0, "force_weight": 1.0}]
        tree["teacher"] = {"kind": "online", "spec": "emt", "labels": "step"}
        if name == "store":
            tree["data"]["store"] = str(tmp_path / "frames")
        train(check_config(tree, source="test"), quiet=True)
        records = RunFolder(tmp_path / name).metrics()
        losses[name] = [one["loss"] for one in records if "loss" in one]
    assert losses["store"] == losses["memory"]
