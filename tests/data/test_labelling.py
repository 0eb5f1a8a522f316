"""From structures to frames to a labelled set, with EMT as the teacher."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from crack_md.data import labelling, read_dataset, read_structures
from crack_md.data.augment import frames as frames_module
from crack_md.data.augment.frames import count_bases, write_frames
from crack_md.data.augment.recipe import Alloys, Rattle, Recipe, Relax, Variants
from crack_md.data.dataset import read_metadata, teacher_data
from crack_md.data.labelling import (
    LabelRequest,
    SplitRule,
    gas_references,
    label_structures,
)
from crack_md.data.splits import parse_combinations
from crack_md.data.writer import RowWriter
from crack_md.errors import ConfigError, DataError, TeacherError
from crack_md.models.checkpoint import save_model
from crack_md.models.teachers import AseTeacher, TeacherLabels, load_teacher
from tests.factories import tiny_model

RECIPE = Recipe(
    seed=3,
    generate=Alloys(
        elements=("Ag", "Cu", "Pd"),
        counts={"fcc111": 4, "bulk": 3},
        molecules={"H2": 1},
    ),
    variants=Variants(rattle=Rattle(frames=2), relax=Relax(share=0.5, steps=3)),
)


class KilledError(Exception):
    """Stands for a kill between two chunks."""


def positions(path):
    return [atoms.positions for atoms in read_structures(path)]


def test_frames_carry_what_they_are(tmp_path):
    out = tmp_path / "frames.aselmdb"

    count = write_frames(RECIPE, out, teacher="emt")

    frames = list(read_structures(out))
    assert len(frames) == count > 16
    assert {atoms.info["kind"] for atoms in frames} == {"rattled", "relaxed"}
    assert {atoms.info["surface"] for atoms in frames} == {"fcc111", "bulk", "molecule"}
    metadata = read_metadata(out)
    assert metadata["teacher"] == "emt"
    assert metadata["lattice_constants"]["Cu"] == pytest.approx(3.59, abs=0.01)
    assert metadata["recipe"]["seed"] == 3


def test_a_killed_run_continues_and_ends_up_the_same(tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole.db", tmp_path / "broken.db"
    monkeypatch.setattr(frames_module, "CHUNK", 2)
    write_frames(RECIPE, whole, teacher="emt")

    def stop(done: int, _: int) -> None:
        if done == 4:
            raise KilledError

    with pytest.raises(KilledError):
        write_frames(RECIPE, broken, teacher="emt", report=stop)
    assert not broken.exists()
    seen = []
    write_frames(
        RECIPE, broken, teacher="emt", report=lambda done, _: seen.append(done)
    )

    assert seen[0] == 6
    for first, second in zip(positions(whole), positions(broken), strict=True):
        np.testing.assert_array_equal(first, second)


def test_workers_make_the_same_frames(tmp_path):
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    recipe = RECIPE.model_copy(
        update={"variants": Recipe().variants, "generate": RECIPE.generate}
    )

    write_frames(recipe, one, teacher="emt", limit=5)
    write_frames(recipe, two, teacher="emt", limit=5, workers=2)

    for first, second in zip(positions(one), positions(two), strict=True):
        np.testing.assert_array_equal(first, second)


def test_files_are_augmented_without_a_teacher(tmp_path):
    source, out = tmp_path / "slabs.extxyz", tmp_path / "frames.extxyz"
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    slab.info = {}  # ase.build leaves there what extended XYZ cannot store
    write(source, [slab, bulk("Au")])

    write_frames(Recipe(), out, sources=[source])

    frames = list(read_structures(out))
    assert len(frames) == 8
    assert frames[0].pbc.tolist() == [True, True, False]
    assert len({atoms.info["group"] for atoms in frames}) == 2


def test_recipes_that_cannot_work_are_refused(tmp_path):
    out = tmp_path / "frames.db"
    with pytest.raises(ConfigError, match="nothing to augment"):
        write_frames(Recipe(), out)
    with pytest.raises(TeacherError, match="lattice constants of Ag, Cu, Pd"):
        write_frames(RECIPE, out)
    assert count_bases(RECIPE) == 8
    assert count_bases(RECIPE, limit=3) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".aselmdb", ".db", ".extxyz"])
def test_a_labelled_set_has_the_teachers_labels(tmp_path, suffix):
    frames, out = tmp_path / "frames.db", tmp_path / f"train{suffix}"
    write_frames(RECIPE, frames, teacher="emt")

    counts = label_structures([frames], out, teacher="emt")

    dataset = read_dataset(out)
    assert len(dataset) == counts.labelled
    one = dataset.structures[-1]
    (fresh,) = load_teacher("emt").predict([one.atoms])
    assert one.energy == pytest.approx(fresh.energy, abs=1e-6)
    np.testing.assert_allclose(one.forces, fresh.forces, atol=1e-6)
    np.testing.assert_allclose(one.teacher.forces, fresh.forces, atol=1e-6)
    assert one.teacher.node_features is None
    assert not dataset.has_features
    assert dataset.metadata["teacher_sha256"] == load_teacher("emt").sha256
    assert dataset.metadata["n_features"] == 0


def test_labels_made_by_the_same_weights_are_kept(tmp_path, monkeypatch):
    frames = tmp_path / "frames.db"
    write_frames(RECIPE, frames, teacher="emt")
    known = sum("teacher_energy" in atoms.info for atoms in read_structures(frames))
    asked = []
    predict = AseTeacher.predict
    monkeypatch.setattr(
        AseTeacher,
        "predict",
        lambda self, atoms: asked.append(len(atoms)) or predict(self, atoms),
    )

    monkeypatch.setattr(labelling, "gas_references", lambda teacher: {})
    counts = label_structures([frames], tmp_path / "a.db", teacher="emt")

    assert known > 0
    assert sum(asked) == counts.labelled + counts.dropped - known


def test_labels_of_other_weights_are_replaced(tmp_path):
    source, out = tmp_path / "frames.db", tmp_path / "train.db"
    other = AseTeacher(_Constant(), name="other")
    _write_frames_of(other, source)

    label_structures([source], out, teacher="emt")

    (one,) = read_dataset(out).structures
    assert one.teacher.energy == pytest.approx(
        load_teacher("emt").predict([bulk("Cu")])[0].energy
    )


def test_dft_labels_stay_beside_the_teachers(tmp_path):
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=-3.75, forces=[[0.0, 0.0, 0.5]])
    write(tmp_path / "dft.traj", atoms)

    label_structures([tmp_path / "dft.traj"], tmp_path / "train.db", teacher="emt")

    (one,) = read_dataset(tmp_path / "train.db").structures
    assert one.energy == -3.75
    assert one.forces.tolist() == [[0.0, 0.0, 0.5]]
    assert one.teacher.energy != pytest.approx(-3.75)


def test_structures_with_huge_forces_are_left_out(tmp_path):
    close = Atoms("Cu2", [[0, 0, 0], [0, 0, 1.2]])
    write(tmp_path / "a.traj", [bulk("Cu"), close])

    counts = label_structures([tmp_path / "a.traj"], tmp_path / "b.db", teacher="emt")

    assert (counts.labelled, counts.dropped) == (1, 1)


def test_held_out_pairs_become_the_test_set(tmp_path):
    alloy = bulk("Cu", cubic=True)
    alloy.symbols[:] = ["Ag", "Ag", "Pd", "Cu"]
    write(tmp_path / "a.traj", [bulk("Ag"), alloy, bulk("Pd")])
    rule = SplitRule((("Ag", "Pd"),), val=0.0)

    label_structures(
        [tmp_path / "a.traj"], tmp_path / "b.db", teacher="emt", split=rule
    )

    splits = [one.split for one in read_dataset(tmp_path / "b.db").structures]
    assert splits == ["train", "test", "train"]


def test_labelling_continues_after_a_kill(tmp_path, monkeypatch):
    cells = [bulk("Cu", a=3.4 + 0.02 * i) for i in range(7)]
    write(tmp_path / "a.traj", cells)
    monkeypatch.setattr(labelling, "CHUNK", 2)

    def stop(done: int) -> None:
        if done == 4:
            raise KilledError

    with pytest.raises(KilledError):
        label_structures(
            [tmp_path / "a.traj"], tmp_path / "b.aselmdb", teacher="emt", report=stop
        )
    seen = []
    counts = label_structures(
        [tmp_path / "a.traj"],
        tmp_path / "b.aselmdb",
        teacher="emt",
        report=seen.append,
    )

    assert seen == [6, 7]
    assert counts.labelled == 7
    volumes = [
        one.atoms.get_volume()
        for one in read_dataset(tmp_path / "b.aselmdb").structures
    ]
    assert volumes == sorted(volumes)
    write(tmp_path / "a.traj", cells[:3])
    with pytest.raises(DataError, match="exists"):
        label_structures([tmp_path / "a.traj"], tmp_path / "b.aselmdb", teacher="emt")


def test_groups_that_read_as_numbers_and_odd_entries_are_stored(tmp_path):
    atoms = bulk("Cu")
    atoms.info = {"group": 17, "sid": "random17", "odd": object}

    row = labelling.label_row(atoms, TeacherLabels(0.0, np.zeros((1, 3))), SplitRule())
    row.info["group"] = labelling.group_of(atoms, 0)
    writer = RowWriter(tmp_path / "b.db", job={})
    writer.append([row], done=1)

    (stored,) = list(writer.rows())
    assert stored.info["group"] == "group-17"
    assert stored.info["sid"] == "random17"
    assert "odd" not in stored.info


def test_an_element_the_teacher_does_not_know_is_named(tmp_path):
    write(tmp_path / "a.traj", bulk("Fe"))

    with pytest.raises(
        TeacherError, match=r"the teacher emt does not know Fe, which .*Fe"
    ):
        label_structures([tmp_path / "a.traj"], tmp_path / "b.db", teacher="emt")

    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.db.lock", "a.traj"]


class Springs:
    """A teacher whose relaxed molecules have a known energy: bonds of 1 Å at -2 eV."""

    name, sha256, has_features, energy_reference = "springs", "0", False, "total"

    def __init__(self, elements: frozenset[int] | None = None) -> None:
        self.elements = elements

    def predict(self, atoms: list[Atoms]) -> list[TeacherLabels]:
        return [self.answer(one) for one in atoms]

    def answer(self, atoms: Atoms) -> TeacherLabels:
        energy, forces = 0.0, np.zeros((len(atoms), 3))
        for other in range(1, len(atoms)):
            bond = atoms.positions[other] - atoms.positions[0]
            length = np.linalg.norm(bond)
            energy += 5 * (length - 1.0) ** 2 - 2.0
            forces[other] -= 10 * (length - 1.0) * bond / length
        forces[0] = -forces[1:].sum(axis=0)
        return TeacherLabels(energy, forces)


def test_gas_references_are_energies_of_relaxed_molecules():
    assert gas_references(Springs()) == pytest.approx(
        {"H2O": -4.0, "H2": -2.0}, abs=1e-4
    )
    assert list(gas_references(Springs(frozenset({1})))) == ["H2"]


class _Constant(Calculator):
    """Says -1 eV to everything."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": -1.0, "forces": np.zeros((len(atoms), 3))}


def _write_frames_of(teacher, path):
    atoms = bulk("Cu")
    atoms.info = {"group": "cu", **teacher_data(teacher.predict([atoms])[0])}
    writer = RowWriter(path, job={})
    writer.append([atoms], done=1)
    writer.finish({"teacher_sha256": teacher.sha256})


def save_tiny(path):
    save_model(tiny_model(dtype=torch.float32), path)
    return path


def test_another_teacher_leaves_the_labels_of_the_task(tmp_path):
    frames, first, second = (tmp_path / f"{n}.db" for n in ("frames", "one", "two"))
    write(frames, [bulk("Cu", a=a, cubic=True) for a in (3.5, 3.6, 3.7, 3.8)])
    label_structures([frames], first, teacher="emt", split=SplitRule(val=0.5))
    model = save_tiny(tmp_path / "six.pt")

    label_structures(
        [first],
        second,
        teacher=str(model),
        split=SplitRule(val=0.0, seed=5),
        largest_force=1e6,
    )

    for old, new in zip(
        read_dataset(first).structures, read_dataset(second).structures, strict=True
    ):
        assert new.energy == old.energy
        np.testing.assert_array_equal(new.forces, old.forces)
        assert (new.group, new.kind, new.split) == (old.group, old.kind, old.split)
        assert new.teacher.energy != old.teacher.energy
        assert new.teacher.node_features.shape == (len(new.atoms), 1, 8)


def test_all_degrees_and_rows_are_stored_on_demand(tmp_path):
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    slab.set_constraint(FixAtoms(indices=[0]))
    write(tmp_path / "in.db", [slab, bulk("Cu", cubic=True)])
    model = save_tiny(tmp_path / "six.pt")
    wanted = LabelRequest(features="all", jacobian_rows=4)

    outs = [tmp_path / "one.db", tmp_path / "two.aselmdb"]
    for out, workers in zip(outs, (1, 2), strict=True):
        label_structures(
            [tmp_path / "in.db"],
            out,
            teacher=str(model),
            wanted=wanted,
            workers=workers,
            largest_force=1e6,
        )

    one, two = (read_dataset(out).structures for out in outs)
    assert one[0].teacher.node_features.shape == (3, 9, 8)
    assert set(one[0].teacher.jacobian.atom) <= {1, 2}  # atom 0 is held
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(
            first.teacher.jacobian.values, second.teacher.jacobian.values
        )
    assert read_metadata(outs[0])["jacobian_rows"] == 4


def test_labels_that_lack_something_are_made_again(tmp_path):
    write(tmp_path / "in.db", bulk("Cu", cubic=True))
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    label_structures([tmp_path / "in.db"], first, teacher="emt")

    label_structures(
        [first], second, teacher="emt", wanted=LabelRequest(jacobian_rows=2)
    )

    (row,) = read_dataset(second).structures
    assert row.teacher.jacobian.values.shape == (2, 4, 3)
    assert row.teacher.node_energy.sum() == pytest.approx(row.teacher.energy)


class Counting:
    """Counts the structures that EMT is asked for."""

    def __init__(self, monkeypatch):
        self.asked, predict = 0, AseTeacher.predict

        def counted(teacher, atoms):
            self.asked += len(atoms)
            return predict(teacher, atoms)

        monkeypatch.setattr(AseTeacher, "predict", counted)
        monkeypatch.setattr(labelling, "gas_references", lambda teacher: {})


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        (LabelRequest(jacobian_rows=3), 0),
        (LabelRequest(jacobian_rows=2), 0),
        (LabelRequest(), 0),
        (LabelRequest(jacobian_rows=4), 9),
        (LabelRequest(jacobian_rows=3, jacobian_step_A=0.02), 7),
    ],
)
def test_rows_are_asked_for_once(tmp_path, monkeypatch, wanted, asked):
    cell = bulk("Cu", cubic=True)
    cell.rattle(0.1, seed=0)
    write(tmp_path / "in.db", cell)
    more, out, direct = (tmp_path / f"{n}.db" for n in ("more", "out", "direct"))
    label_structures(
        [tmp_path / "in.db"], more, teacher="emt", wanted=LabelRequest("none", 3)
    )
    label_structures([tmp_path / "in.db"], direct, teacher="emt", wanted=wanted)
    count = Counting(monkeypatch)

    label_structures([more], out, teacher="emt", wanted=wanted)

    assert count.asked == asked
    found, expected = (
        read_dataset(path).structures[0].teacher.jacobian for path in (out, direct)
    )
    assert (found is None) == (wanted.jacobian_rows == 0)
    if found is not None:
        np.testing.assert_array_equal(found.atom, expected.atom)
        np.testing.assert_array_equal(found.axis, expected.axis)
        np.testing.assert_array_equal(found.values, expected.values)


def test_frames_of_older_versions_get_the_energies_of_atoms(tmp_path):
    frames, out = tmp_path / "frames.db", tmp_path / "out.db"
    model = save_tiny(tmp_path / "six.pt")
    teacher = load_teacher(str(model))
    atoms = bulk("Cu", cubic=True)
    (labels,) = teacher.predict([atoms])
    old = dataclasses.replace(labels, node_energy=None)
    atoms.info = {"group": "cu", **teacher_data(old)}
    writer = RowWriter(frames, job={})
    writer.append([atoms], done=1)
    writer.finish({"teacher_sha256": teacher.sha256})

    label_structures([frames], out, teacher=str(model), largest_force=1e6)

    (row,) = read_dataset(out).structures
    assert row.teacher.node_energy.sum() == pytest.approx(labels.energy)


@pytest.mark.parametrize(
    "other",
    [
        LabelRequest("none", 1),
        LabelRequest(jacobian_rows=2),
        LabelRequest("invariant", 1, 0.02),
    ],
)
def test_a_stopped_run_refuses_to_go_on_with_other_wishes(tmp_path, other):
    write(tmp_path / "in.db", [bulk("Cu"), bulk("Au")])
    out = tmp_path / "out.db"

    def stop(done):
        raise KilledError

    with pytest.raises(KilledError):
        label_structures(
            [tmp_path / "in.db"], out, teacher="emt",
            wanted=LabelRequest(jacobian_rows=1), report=stop,
        )  # fmt: skip

    with pytest.raises(DataError, match="begun with other inputs or options"):
        label_structures([tmp_path / "in.db"], out, teacher="emt", wanted=other)


def test_a_teacher_without_higher_degrees_says_so(tmp_path):
    write(tmp_path / "in.db", bulk("Cu"))
    with pytest.raises(TeacherError, match="no node features above degree 0"):
        label_structures(
            [tmp_path / "in.db"],
            tmp_path / "out.db",
            teacher="emt",
            wanted=LabelRequest(features="all"),
        )


def test_structures_of_a_combination_are_left_out(tmp_path):
    metals = [bulk("Cu"), bulk("Ni"), bulk("Ni", cubic=True)]
    metals[2].symbols[0] = "O"
    write(tmp_path / "in.db", metals)

    for text, n_left in (("Ni", 1), ("Ni-O", 2), ("Cu,Ni-O", 1), ("", 3)):
        out = tmp_path / f"out-{text}.db"
        label_structures(
            [tmp_path / "in.db"],
            out,
            teacher="emt",
            leave_out=parse_combinations(text),
            largest_force=1e6,
        )
        assert len(read_dataset(out)) == n_left, text

    with pytest.raises(ConfigError, match="'Xx-O' is no element"):
        parse_combinations("Ni,Xx-O")


def test_half_features_are_rounded_and_kept(tmp_path):
    write(tmp_path / "in.db", bulk("Cu", cubic=True))
    model = str(save_tiny(tmp_path / "model.pt"))
    found = {}
    for half in (False, True):
        wanted = LabelRequest(half_features=half)
        label_structures(
            [tmp_path / "in.db"],
            tmp_path / f"{half}.aselmdb",
            teacher=model,
            wanted=wanted,
        )
        (one,) = read_dataset(tmp_path / f"{half}.aselmdb").structures
        found[half] = one.teacher.node_features
    assert (found[False].dtype, found[True].dtype) == (np.float32, np.float16)
    assert np.array_equal(found[True], found[False].astype(np.float16))
    # asked for in full, the teacher is asked once more
    label_structures(
        [tmp_path / "True.aselmdb"], tmp_path / "full.aselmdb", teacher=model
    )
    (one,) = read_dataset(tmp_path / "full.aselmdb").structures
    np.testing.assert_array_equal(one.teacher.node_features, found[False])


def test_features_beyond_float16_are_refused():
    labels = TeacherLabels(0.0, np.zeros((1, 3)), np.full((1, 1, 2), 7e4, np.float32))
    with pytest.raises(DataError, match="beyond 65504, which float16 cannot hold"):
        LabelRequest(half_features=True).of(labels)
