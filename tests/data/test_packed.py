"""Packed sets: exact round trips, their rounding, and what is refused."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from crack_md.data import packed
from crack_md.data.dataset import fingerprint, read_dataset, read_metadata
from crack_md.data.labelling import SplitRule, label_structures
from crack_md.data.packed import from_planes, pack, pack_dataset, planes, steps, unpack
from crack_md.data.readers import count_structures, read_structures
from crack_md.data.writer import RowWriter
from crack_md.errors import DataError
from crack_md.models.checkpoint import save_model
from tests.factories import tiny_model


def labelled_row(number: int, **info: object) -> Atoms:
    """Return a rattled slab with numbers that rounding must change."""
    atoms = fcc111("Cu", (1, 1, 3), a=3.6 + number / 7, vacuum=5.0 + number / 3)
    atoms.rattle(0.1, seed=number)
    atoms.pbc = (True, True, number % 2 == 0)
    if number % 3 == 0:
        atoms.set_constraint(FixAtoms([0, 2]))
    forces = np.random.default_rng(number).normal(size=(3, 3))
    energy = -3.0 * number - 1 / 3
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    atoms.info = {"group": f"g{number // 2}", "kind": "rattled", "split": "train"}
    atoms.info |= {"teacher_energy": energy, "teacher_forces": forces, **info}
    return atoms


def write_set(path, rows):
    writer = RowWriter(path, job={})
    writer.append(rows, done=len(rows))
    return writer.finish(
        {
            "format_version": 1,
            "teacher": "three of them",
            "teacher_sha256": "abc",
            "energy_reference": "total",
            "gas_references": {"H2O": -14.1},
            "fingerprint": "before",
            "n_features": 8,
        }
    )


def test_numbers_become_steps_and_planes():
    assert steps(np.array([0.123456, -2.0]), 1e-5, "position").tolist() == [
        12346,
        -200000,
    ]
    assert planes(np.array([1, 258, -1], dtype=np.int32)).tolist() == [
        [1, 2, 255],
        [0, 1, 255],
        [0, 0, 255],
        [0, 0, 255],
    ]
    values = np.array([np.pi, -1e300, 0.0])
    np.testing.assert_array_equal(from_planes(planes(values), "<f8"), values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e5])
def test_numbers_that_cannot_be_stored_are_refused(bad):
    with pytest.raises(DataError, match=r"position is .*±21475"):
        steps(np.array([0.0, bad]), 1e-5, "position")


def test_positions_and_forces_are_rounded_all_else_is_exact(tmp_path):
    rows = [
        labelled_row(n, surface="fcc111", teacher_energy_std=0.1 + n) for n in range(5)
    ]
    rows[2].info |= {"teacher_forces_std": np.full((3, 3), 0.25), "adsorbate": "O+OH"}
    source = write_set(tmp_path / "train.db", rows)

    counts = pack_dataset(source, tmp_path / "orr")

    assert counts.structures == 5
    assert counts.left_out == ()
    found = list(read_structures(tmp_path / "orr"))
    for row, back in zip(rows, found, strict=True):
        np.testing.assert_array_equal(back.numbers, row.numbers)
        np.testing.assert_allclose(back.positions, row.positions, atol=5.001e-6, rtol=0)
        np.testing.assert_allclose(
            back.get_forces(apply_constraint=False),
            row.get_forces(apply_constraint=False),
            atol=5.001e-5,
            rtol=0,
        )
        np.testing.assert_array_equal(back.cell.array, row.cell.array)
        assert back.pbc.tolist() == row.pbc.tolist()
        assert back.get_potential_energy() == row.get_potential_energy()
        held = [c.index.tolist() for c in back.constraints]
        assert held == [c.index.tolist() for c in row.constraints]
        assert back.info["teacher_energy"] == row.get_potential_energy()
        for key in ("group", "kind", "split", "surface", "teacher_energy_std"):
            assert back.info[key] == row.info[key]
    assert found[2].info["teacher_forces_std"].tolist() == [[0.25] * 3] * 3
    assert found[2].info["adsorbate"] == "O+OH"
    assert "adsorbate" not in found[0].info


def test_packing_twice_changes_nothing():
    rows = [labelled_row(n) for n in range(4)]

    first = pack(rows)
    second = pack(unpack(first))

    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_packed_set_says_what_it_is(tmp_path):
    rows = [labelled_row(n) for n in range(3)]
    rows[0].info["teacher_node_features"] = np.ones((3, 8), np.float32)
    rows[1].info["teacher_energy"] = 7.0  # not what the labels say
    source = write_set(tmp_path / "train.db", rows)

    counts = pack_dataset(source, tmp_path / "orr")

    assert counts.left_out == (
        "teacher_energy",
        "teacher_forces",
        "teacher_node_features",
    )
    dataset = read_dataset(tmp_path / "orr")
    assert [one.teacher is None for one in dataset.structures] == [False, True, False]
    assert dataset.metadata["teacher"] == "three of them"
    assert dataset.metadata["gas_references"] == {"H2O": -14.1}
    assert dataset.metadata["n_features"] == 0
    assert dataset.metadata["fingerprint_before_rounding"] == "before"
    assert dataset.metadata["fingerprint"] == fingerprint(dataset.structures)
    assert count_structures([tmp_path / "orr"]) == 3
    assert read_metadata(tmp_path / "orr" / packed.MANIFEST) == dataset.metadata


def test_parts_are_cut_and_found_in_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "STRUCTURES_PER_PART", 2)
    source = write_set(tmp_path / "train.db", [labelled_row(n) for n in range(5)])
    whole = [atoms.positions for atoms in read_structures(source)]

    pack_dataset(source, tmp_path / "sets" / "orr")

    names = sorted(path.name for path in (tmp_path / "sets" / "orr").iterdir())
    assert names == ["packed.json", "part-000.npz", "part-001.npz", "part-002.npz"]
    found = [atoms.positions for atoms in read_structures(tmp_path / "sets")]
    np.testing.assert_allclose(found, whole, atol=5.001e-6)


def test_a_part_holds_so_many_atoms(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "ATOMS_PER_PART", 6)
    source = write_set(tmp_path / "train.db", [labelled_row(n) for n in range(5)])

    pack_dataset(source, tmp_path / "orr")

    manifest = json.loads((tmp_path / "orr" / packed.MANIFEST).read_text())
    assert [part["atoms"] for part in manifest["parts"]] == [6, 6, 3]


def test_altered_parts_are_refused(tmp_path):
    source = write_set(tmp_path / "train.db", [labelled_row(0)])
    pack_dataset(source, tmp_path / "orr")
    part = tmp_path / "orr" / "part-000.npz"
    content = bytearray(part.read_bytes())
    content[60] ^= 1
    part.write_bytes(content)

    with pytest.raises(DataError, match=r"SHA-256 differs"):
        read_dataset(tmp_path / "orr")
    part.unlink()
    with pytest.raises(DataError, match=r"cannot read .*part-000"):
        read_dataset(tmp_path / "orr")


def test_pickles_and_bombs_are_refused(tmp_path, monkeypatch):
    source = write_set(tmp_path / "train.db", [labelled_row(0)])
    pack_dataset(source, tmp_path / "orr")
    monkeypatch.setattr(packed, "LARGEST_UNPACKED_BYTES", 100)
    with pytest.raises(DataError, match=r"damaged \(\d+ bytes unpacked\)"):
        read_dataset(tmp_path / "orr")
    monkeypatch.undo()
    path = tmp_path / "orr" / "part-000.npz"
    np.savez(path, n_atoms=np.array([{}], dtype=object))
    manifest = json.loads((tmp_path / "orr" / packed.MANIFEST).read_text())
    manifest["parts"][0]["sha256"] = packed.hashlib.sha256(
        path.read_bytes()
    ).hexdigest()
    (tmp_path / "orr" / packed.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"damaged .*allow_pickle=False"):
        read_dataset(tmp_path / "orr")


def test_a_set_is_replaced_only_when_asked(tmp_path):
    source = write_set(tmp_path / "train.db", [labelled_row(0)])
    (tmp_path / "orr").mkdir()
    (tmp_path / "orr" / "README.md").write_text("a card")
    pack_dataset(source, tmp_path / "orr")

    with pytest.raises(DataError, match="--overwrite"):
        pack_dataset(source, tmp_path / "orr")
    pack_dataset(source, tmp_path / "orr", overwrite=True)

    assert (tmp_path / "orr" / "README.md").read_text() == "a card"


def test_structures_without_labels_are_refused(tmp_path):
    writer = RowWriter(tmp_path / "a.db", job={})
    writer.append([bulk("Cu")], done=1)
    writer.finish({})

    with pytest.raises(DataError, match="structure 1 has no energy and forces"):
        pack_dataset(tmp_path / "a.db", tmp_path / "orr")

    assert not (tmp_path / "orr" / packed.MANIFEST).exists()


def test_features_come_back_and_labels_stay(tmp_path):
    source = write_set(tmp_path / "train.db", [labelled_row(n) for n in range(3)])
    pack_dataset(source, tmp_path / "orr")

    label_structures(
        [tmp_path / "orr"],
        tmp_path / "again.db",
        teacher="emt",
        split=SplitRule(val=0.5, seed=9),
        largest_force=1e6,
    )

    before = read_dataset(tmp_path / "orr").structures
    again = read_dataset(tmp_path / "again.db")
    for old, new in zip(before, again.structures, strict=True):
        assert new.energy == old.energy
        np.testing.assert_array_equal(new.forces, old.forces)
        assert new.split == "train"
        assert new.teacher.energy != old.energy
    told = again.metadata
    assert (told["teacher"], told["labels_by"]) == ("emt", "three of them")
    assert told["labels_by_sha256"] == "abc"
    assert told["gas_references"] == {"H2O": -14.1}  # on the zero of the labels


def test_only_features_are_taken_from_another_teacher(tmp_path):
    rows = [labelled_row(n, teacher_spread=0.1) for n in range(3)]
    source = write_set(tmp_path / "train.db", rows)
    pack_dataset(source, tmp_path / "orr")
    save_model(tiny_model(dtype=torch.float32), tmp_path / "six.pt")

    label_structures(
        [tmp_path / "orr"],
        tmp_path / "again.db",
        teacher=str(tmp_path / "six.pt"),
        only_features=True,
    )

    again = read_dataset(tmp_path / "again.db")
    for row, new in zip(
        read_structures(tmp_path / "orr"), again.structures, strict=True
    ):
        assert new.energy == new.teacher.energy == row.get_potential_energy()
        np.testing.assert_array_equal(new.teacher.forces, new.forces)
        assert new.teacher.node_features.shape == (3, 1, 8)
        assert new.teacher.node_energy is None
    assert again.metadata["labels_by"] == "three of them"
    writer = RowWriter(tmp_path / "bare.db", job={})
    writer.append([bulk("Cu")], done=1)
    writer.finish({})
    with pytest.raises(DataError, match="Cu brings no label"):
        label_structures(
            [tmp_path / "bare.db"],
            tmp_path / "out.db",
            teacher=str(tmp_path / "six.pt"),
            only_features=True,
        )


def test_labels_of_two_teachers_do_not_mix(tmp_path):
    source = write_set(tmp_path / "train.db", [labelled_row(0)])
    writer = RowWriter(tmp_path / "bare.db", job={})
    writer.append([bulk("Cu")], done=1)
    writer.finish({})

    with pytest.raises(DataError, match="three of them, no one named"):
        label_structures(
            [source, tmp_path / "bare.db"], tmp_path / "out.db", teacher="emt"
        )
