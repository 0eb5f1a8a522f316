"""Rows survive the way to disk and back, kills included."""

import dataclasses

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT

from crack_md.data.dataset import (
    LabelledStructure,
    fingerprint,
    read_dataset,
    read_metadata,
    to_row,
)
from crack_md.data.writer import RowWriter
from crack_md.errors import DataError
from crack_md.models.teachers import JacobianRows, TeacherLabels


def labelled(number: int) -> LabelledStructure:
    atoms = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    atoms.rattle(0.05, seed=number)
    atoms.info, atoms.arrays["tags"] = {}, np.zeros(3, int)
    atoms.pbc = True
    atoms.calc = EMT()
    forces = atoms.get_forces()
    features = np.random.default_rng(number).normal(size=(3, 1, 4)).astype(np.float32)
    return LabelledStructure(
        atoms=atoms,
        energy=atoms.get_potential_energy(),
        forces=forces,
        teacher=TeacherLabels(1.25 * number, 2 * forces, features),
        group=f"slab-{number}",
        kind="rattled",
        free=np.array([False, True, True]),
        split=("train", "val", "test")[number % 3],
    )


def written(path, numbers=range(3)):
    structures = [labelled(number) for number in numbers]
    writer = RowWriter(path, job={})
    writer.append([to_row(one) for one in structures], done=len(structures))
    writer.finish({"format_version": 1, "teacher": "emt"})
    return structures


@pytest.mark.parametrize("suffix", [".aselmdb", ".db", ".extxyz"])
def test_a_dataset_comes_back_as_it_was(tmp_path, suffix):
    path = tmp_path / f"set{suffix}"
    before = written(path)

    dataset = read_dataset(path)

    tolerance = 1e-7 if suffix == ".extxyz" else 0.0
    assert dataset.metadata == {"format_version": 1, "teacher": "emt"}
    assert dataset.elements == (29,)
    assert dataset.has_features
    assert [one.group for one in dataset.select("val")] == ["slab-1"]
    for old, new in zip(before, dataset.structures, strict=True):
        assert new.energy == pytest.approx(old.energy, abs=tolerance)
        np.testing.assert_allclose(new.atoms.positions, old.atoms.positions, atol=1e-7)
        np.testing.assert_allclose(new.forces, old.forces, atol=tolerance)
        np.testing.assert_allclose(new.teacher.forces, old.teacher.forces, atol=1e-7)
        np.testing.assert_allclose(
            new.teacher.node_features, old.teacher.node_features, rtol=1e-6
        )
        assert new.teacher.energy == pytest.approx(old.teacher.energy)
        assert new.teacher.node_features.dtype == np.float32
        assert (new.group, new.kind, new.split) == (old.group, old.kind, old.split)
        np.testing.assert_array_equal(new.free, old.free)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize("suffix", [".aselmdb", ".db", ".extxyz"])
@pytest.mark.parametrize("n_rows", [1, 2, 3])  # 3 is the number of atoms as well
def test_everything_a_teacher_says_comes_back(tmp_path, suffix, n_rows):
    random = np.random.default_rng(n_rows)
    said = TeacherLabels(
        energy=-1.5,
        forces=random.normal(size=(3, 3)),
        node_features=random.normal(size=(3, 4, 2)).astype(np.float32),
        node_energy=random.normal(size=3),
        jacobian=JacobianRows(
            atom=np.arange(n_rows),
            axis=np.arange(n_rows) % 3,
            values=random.normal(size=(n_rows, 3, 3)).astype(np.float32),
        ),
    )
    path = tmp_path / f"set{suffix}"
    writer = RowWriter(path, job={})
    structure = dataclasses.replace(labelled(0), teacher=said)
    writer.append([to_row(structure), to_row(labelled(1))], done=2)
    writer.finish({"format_version": 1})

    read, plain = (one.teacher for one in read_dataset(path).structures)

    close = {"rtol": 1e-6, "atol": 1e-7}
    assert read.node_features.shape == (3, 4, 2)
    np.testing.assert_allclose(read.node_features, said.node_features, **close)
    np.testing.assert_allclose(read.node_energy, said.node_energy, **close)
    np.testing.assert_array_equal(read.jacobian.atom, said.jacobian.atom)
    np.testing.assert_array_equal(read.jacobian.axis, said.jacobian.axis)
    np.testing.assert_allclose(read.jacobian.values, said.jacobian.values, **close)
    assert plain.node_features.shape == (3, 1, 4)
    assert plain.node_energy is None
    assert plain.jacobian is None


def test_the_fingerprint_sees_labels_and_ignores_storage(tmp_path):
    before = written(tmp_path / "a.aselmdb")
    written(tmp_path / "b.db")
    changed = [dataclasses.replace(before[0], energy=before[0].energy + 1e-9)]

    first, second = (
        fingerprint(read_dataset(tmp_path / name).structures)
        for name in ("a.aselmdb", "b.db")
    )

    assert first == second == fingerprint(before)
    assert fingerprint([*changed, *before[1:]]) != first


@pytest.mark.parametrize("suffix", [".aselmdb", ".db", ".extxyz"])
def test_an_interrupted_file_is_continued(tmp_path, suffix):
    path, job = tmp_path / f"set{suffix}", {"seed": 1, "limit": None}
    RowWriter(path, job=job).append([to_row(labelled(0))], done=5)
    assert not path.exists()

    writer = RowWriter(path, job=job)

    assert writer.done == 5
    writer.append([to_row(labelled(1))], done=9)
    writer.finish({})
    assert [one.group for one in read_dataset(path).structures] == ["slab-0", "slab-1"]


def test_a_chunk_that_fails_leaves_nothing_behind(tmp_path):
    writer = RowWriter(tmp_path / "set.db", job={})
    writer.append([to_row(labelled(0))], done=1)
    broken = to_row(labelled(1))
    broken.info["group"] = "17"  # ASE refuses keys that look like numbers

    with pytest.raises(ValueError, match="17"):
        writer.append([to_row(labelled(2)), broken], done=3)

    again = RowWriter(tmp_path / "set.db", job={})
    assert again.done == 1
    assert len(list(again.rows())) == 1


def test_a_partial_file_of_another_job_is_refused(tmp_path):
    path = tmp_path / "set.aselmdb"
    RowWriter(path, job={"seed": 1}).append([to_row(labelled(0))], done=1)

    assert read_metadata(tmp_path / "set.partial.aselmdb") == {"seed": 1}
    with pytest.raises(DataError, match="begun with other inputs or options"):
        RowWriter(path, job={"seed": 2})


def test_targets_are_checked_before_any_work(tmp_path):
    written(tmp_path / "set.db")
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match="pass --overwrite"):
        RowWriter(tmp_path / "set.db", job={})
    with pytest.raises(DataError, match=r"unknown ending '\.npz'"):
        RowWriter(tmp_path / "set.npz", job={})
    with pytest.raises(DataError, match="cannot create the folder"):
        RowWriter(tmp_path / "file" / "set.db", job={})
    RowWriter(tmp_path / "set.db", job={}, overwrite=True)


def test_structures_without_labels_are_refused(tmp_path):
    path = tmp_path / "set.db"
    writer = RowWriter(path, job={})
    writer.append([bulk("Cu")], done=1)
    writer.finish({})

    with pytest.raises(DataError, match=r"structure 1 has no energy and forces; label"):
        read_dataset(path)


def test_labels_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "set.aselmdb"
    forces = np.full((3, 3), np.nan)
    broken = dataclasses.replace(labelled(0), forces=forces, teacher=None)
    writer = RowWriter(path, job={})
    writer.append([to_row(broken)], done=1)
    writer.finish({})

    with pytest.raises(DataError, match="not finite"):
        read_dataset(path)


def test_an_unknown_format_version_is_refused(tmp_path):
    path = tmp_path / "set.aselmdb"
    writer = RowWriter(path, job={})
    writer.append([to_row(labelled(0))], done=1)
    writer.finish({"format_version": 2})

    with pytest.raises(DataError, match="dataset format 2; this version reads 1"):
        read_dataset(path)
