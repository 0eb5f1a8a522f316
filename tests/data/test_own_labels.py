"""Labels that structures bring: each is kept, and what happened to them is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import (
    FixAtoms,
    FixBondLength,
    FixCartesian,
    FixedLine,
    FixedPlane,
    FixScaled,
)

from crack_md.data.dataset import free_atoms, read_dataset, read_metadata
from crack_md.data.labelling import LabelCounts, label_structures
from crack_md.data.readers import read_structures
from crack_md.errors import DataError
from crack_md.models.teachers import load_teacher


def crystal(number: int = 0) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=number)
    return atoms


def with_results(atoms: Atoms, **results: Any) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def label(
    frames: list[Atoms], folder: Path
) -> tuple[LabelCounts, list[Any], list[Any]]:
    """Return the counts, the labelled structures, and what EMT says of them."""
    ase.io.write(folder / "in.extxyz", frames)
    counts = label_structures([folder / "in.extxyz"], folder / "out.db", teacher="emt")
    structures = list(read_dataset(folder / "out.db").structures)
    teacher = load_teacher("emt").predict([one.atoms for one in structures])
    return counts, structures, teacher


def test_each_label_is_kept_and_the_rest_is_the_teachers(tmp_path: Path) -> None:
    forces = np.full((4, 3), 0.25)
    frames = [crystal(number) for number in range(5)]
    with_results(frames[0], energy=-7.0)
    with_results(frames[1], forces=forces)
    with_results(frames[2], energy=-9.0, forces=forces)
    with_results(frames[4], free_energy=-11.0)
    counts, found, teacher = label(frames, tmp_path)
    expected = [-7.0, teacher[1].energy, -9.0, teacher[3].energy, -11.0]
    np.testing.assert_allclose([one.energy for one in found], expected, atol=1e-6)
    for number in (0, 3, 4):
        np.testing.assert_allclose(
            found[number].forces, teacher[number].forces, atol=1e-6
        )
    for number in (1, 2):
        np.testing.assert_allclose(found[number].forces, forces)
    assert all(
        one.teacher.energy == pytest.approx(answer.energy, abs=1e-6)
        for one, answer in zip(found, teacher, strict=True)
    )
    assert counts.own == {
        "energy": 2,
        "forces": 1,
        "energy and forces": 1,
        "no label": 1,
    }
    assert counts.lines()[1].startswith("2 came with an energy alone: it is kept")


def test_reference_labels_go_before_those_of_a_calculator(tmp_path: Path) -> None:
    frames = [with_results(crystal(), energy=-1.0, forces=np.zeros((4, 3)))]
    frames += [crystal(1), crystal(2)]
    for frame in frames[:2]:
        frame.info["REF_energy"] = -12.5
        frame.set_array("REF_forces", np.full((4, 3), 0.5))
    frames[2].info["REF_energy"] = -3.5
    counts, found, teacher = label(frames, tmp_path)
    assert [one.energy for one in found] == [-12.5, -12.5, -3.5]
    for one in found[:2]:
        np.testing.assert_array_equal(one.forces, np.full((4, 3), 0.5))
    np.testing.assert_allclose(found[2].forces, teacher[2].forces, atol=1e-6)
    assert counts.own == {"energy and forces": 2, "energy": 1, "replaced": 1}
    assert "1 have other values under REF_energy" in counts.lines()[-1]
    ase.io.write(tmp_path / "bare.extxyz", frames[1])
    (bare,) = read_dataset(tmp_path / "bare.extxyz").structures  # without a teacher
    assert bare.energy == -12.5


HEADERS: dict[str, tuple[Callable[[Atoms], object], str]] = {
    "stray teacher_energy": (
        lambda a: a.info.update(teacher_energy=1.0),
        "teacher_energy but labels that are no teacher's .*teacher_forces",
    ),
    "teacher_forces of another shape": (
        lambda a: a.info.update(teacher_energy=1.0, teacher_forces=[1.0, 2.0]),
        "no teacher's .*reshape",
    ),
    "teacher_energy of words": (
        lambda a: a.info.update(teacher_energy="low", teacher_forces=np.zeros(12)),
        "no teacher's .*float",
    ),
    "split": (lambda a: a.info.update(split="training"), "split is 'training'"),
    "split of numbers": (lambda a: a.info.update(split=[1, 2]), "split is"),
    "REF_energy of words": (
        lambda a: a.info.update(REF_energy="low"),
        "energy is 'low'; expected numbers",
    ),
    "REF_energy of two": (
        lambda a: a.info.update(REF_energy=[1.0, 2.0]),
        "an energy of 2 numbers",
    ),
    "REF_energy NaN": (
        lambda a: a.info.update(REF_energy=float("nan")),
        "not finite",
    ),
    "REF_forces of one column": (
        lambda a: a.set_array("REF_forces", np.zeros(4)),
        r"forces of shape \(4,\)",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_odd_headers_end_in_one_line(tmp_path: Path, name: str) -> None:
    spoil, message = HEADERS[name]
    path = tmp_path / "odd.extxyz"
    atoms = with_results(crystal(), energy=-1.0, forces=np.zeros((4, 3)))
    spoil(atoms)
    ase.io.write(path, atoms)
    with pytest.raises(DataError, match=rf"odd\.extxyz, structure 1.*{message}"):
        read_dataset(path)
    if "teacher" not in name:  # those of no known teacher are forgotten
        with pytest.raises(DataError, match=message):
            label_structures([path], tmp_path / "out.db", teacher="emt")


@pytest.mark.parametrize(
    ("metadata", "known"),
    [("relaxed with VASP", {}), ("[1, 2]", {}), ("7", {}), ('{"a": 1}', {"a": 1})],
)
def test_metadata_of_others_are_not_ours(
    tmp_path: Path, metadata: str, known: dict[str, Any]
) -> None:
    atoms = crystal()
    atoms.info["metadata"] = metadata
    ase.io.write(tmp_path / "a.extxyz", atoms)
    assert read_metadata(tmp_path / "a.extxyz") == known


def test_damaged_metadata_are_one_line(tmp_path: Path) -> None:
    atoms = crystal()
    atoms.info["metadata"] = json.dumps({"teacher": "emt"})[:-1]
    ase.io.write(tmp_path / "a.extxyz", atoms)
    with pytest.raises(DataError, match="metadata of its first frame are damaged"):
        read_metadata(tmp_path / "a.extxyz")


CONSTRAINTS: dict[str, tuple[list[Any], list[int]]] = {
    "none": ([], []),
    "FixAtoms": ([FixAtoms([0, 2])], [0, 2]),
    "FixScaled": ([FixScaled([1], [True] * 3)], [1]),
    "FixScaled along two": ([FixScaled([1], [True, True, False])], []),
    "FixCartesian": ([FixCartesian([0, 3])], [0, 3]),
    "FixCartesian along z": ([FixCartesian([0], [False, False, True])], []),
    "together": ([FixCartesian([0], [0, 0, 1]), FixCartesian([0], [1, 1, 0])], [0]),
    "line": ([FixedLine([1], [0, 0, 1])], []),
    "line and plane": ([FixedLine([1], [0, 0, 1]), FixedPlane([1], [0, 0, 1])], [1]),
    "bond": ([FixBondLength(0, 1)], []),
    "empty": ([FixAtoms([])], []),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_an_atom_that_can_not_move_is_held(name: str) -> None:
    constraints, held = CONSTRAINTS[name]
    slab = fcc111("Cu", (1, 1, 4), vacuum=6.0)  # an oblique cell
    slab.set_constraint(constraints)
    assert np.flatnonzero(~free_atoms(slab)).tolist() == held


def test_held_atoms_survive_files(tmp_path: Path) -> None:
    atoms = with_results(crystal(), energy=-1.0, forces=np.ones((4, 3)))
    atoms.set_constraint(FixScaled([1, 2], [True] * 3))
    atoms.write(tmp_path / "in.traj")
    label_structures([tmp_path / "in.traj"], tmp_path / "out.db", teacher="emt")
    (one,) = read_dataset(tmp_path / "out.db").structures
    assert one.free.tolist() == [True, False, False, True]


def test_the_packaged_student_labels_by_its_name(tmp_path: Path) -> None:
    crystal().write(tmp_path / "in.extxyz")
    label_structures([tmp_path / "in.extxyz"], tmp_path / "out.db", teacher="default")
    (row,) = read_structures(tmp_path / "out.db")
    (expected,) = load_teacher("default").predict([crystal()])
    assert row.info["teacher_energy"] == pytest.approx(expected.energy, abs=1e-5)
