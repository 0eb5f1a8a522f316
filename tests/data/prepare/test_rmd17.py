"""rMD17 files: units, both sets of labels, published splits."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from crack_md.data.dataset import read_dataset, read_metadata
from crack_md.data.prepare.rmd17 import KCAL_PER_MOL, RMD17Counts, prepare_rmd17
from crack_md.errors import DataError

N = 6


def molecule(path: Path, indices: list[int], **changes: object) -> Path:
    """Write frames of H2 whose energy says which frame of MD17 they are."""
    index = np.array(indices)
    positions = np.zeros((len(index), 2, 3))
    positions[:, 1, 2] = 0.7 + 0.001 * index
    arrays = {
        "nuclear_charges": np.array([1, 1], dtype=np.uint8),
        "coords": positions,
        "energies": -100.0 - index,
        "forces": np.full((len(index), 2, 3), 2.0),
        "old_energies": -200.0 - index,
        "old_forces": np.full((len(index), 2, 3), 3.0),
        "old_indices": index,
    }
    arrays = {k: v for k, v in (arrays | changes).items() if v is not None}
    np.savez(path, **arrays)
    return path


def test_a_kilocalorie_per_mole_in_electronvolts() -> None:
    assert pytest.approx(0.0433641, rel=1e-5) == KCAL_PER_MOL


@pytest.mark.parametrize(
    ("labels", "energy", "force"), [("old", -200, 3.0), ("recomputed", -100, 2.0)]
)
def test_frames_come_in_the_order_of_sampling(
    tmp_path: Path, labels: str, energy: float, force: float
) -> None:
    source = molecule(tmp_path / "rmd17_h2.npz", [4, 0, 2])
    out = tmp_path / "out.db"

    written = prepare_rmd17([source], out, labels=labels)  # type: ignore[arg-type]

    rows = read_dataset(out).structures
    assert written == RMD17Counts({"train": 3}, duplicates=0)
    assert [row.group for row in rows] == ["H2-000000", "H2-000002", "H2-000004"]
    expected = [(energy - index) * KCAL_PER_MOL for index in (0, 2, 4)]
    assert [row.energy for row in rows] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(rows[0].forces, force * KCAL_PER_MOL)
    assert rows[1].atoms.positions[1, 2] == pytest.approx(0.702)
    assert not rows[0].atoms.pbc.any()
    assert read_metadata(out)["labels"] == labels
    assert read_metadata(out)["thermostat_K"] == 500.0


def test_frames_of_both_lists_stay_in_training(tmp_path: Path) -> None:
    train = molecule(tmp_path / "rmd17_h2_train_01.npz", [1, 2, 3])
    test = molecule(tmp_path / "rmd17_h2_test_01.npz", [3, 4])

    for number, order in enumerate([[train, test], [test, train]]):
        out = tmp_path / f"{number}.db"
        counts = prepare_rmd17(order, out, labels="old", val=0.0)
        assert counts == RMD17Counts({"train": 3, "test": 1}, duplicates=1)
        splits = [row.split for row in read_dataset(out).structures]
        assert splits == ["train", "train", "train", "test"]


def test_published_lists_choose_frames_of_a_whole_file(tmp_path: Path) -> None:
    source = molecule(tmp_path / "rmd17_h2.npz", [10, 11, 12, 13, 14])
    (tmp_path / "index_train_02.csv").write_text("0\n3\n")
    (tmp_path / "index_test_02.csv").write_text("1\n3\n")

    prepare_rmd17(
        [source],
        tmp_path / "out.db",
        labels="old",
        index_folder=tmp_path,
        number=2,
        val=0.0,
    )

    rows = read_dataset(tmp_path / "out.db").structures
    assert [(row.group[-2:], row.split) for row in rows] == [
        ("10", "train"),
        ("11", "test"),
        ("13", "train"),
    ]


def published(folder: Path) -> Path:
    """Write the folders of rMD17 with two molecules and two splits."""
    (folder / "rmd17" / "npz_data").mkdir(parents=True)
    (folder / "rmd17" / "splits").mkdir()
    for name in ("h2", "ethanol"):
        molecule(folder / f"rmd17/npz_data/rmd17_{name}.npz", [10, 11, 12, 13])
    for number, (train, test) in enumerate((("0\n1\n", "2\n"), ("3\n", "0\n")), 1):
        for split, text in (("train", train), ("test", test)):
            name = f"rmd17/splits/index_{split}_{number:02d}.csv"
            (folder / name).write_text(text)
    return folder / "rmd17"


@pytest.mark.parametrize("kind", ["folder", "archive", "file"])
def test_the_download_as_published(tmp_path: Path, kind: str) -> None:
    source = published(tmp_path)
    if kind == "archive":
        with tarfile.open(tmp_path / "rmd17.tar.bz2", "w:bz2") as archive:
            archive.add(source, "rmd17")
        source = tmp_path / "rmd17.tar.bz2"
    if kind == "file":
        source = source / "npz_data" / "rmd17_h2.npz"
    found = {}
    for number in (1, 2):
        out = tmp_path / f"{number}.db"
        prepare_rmd17(
            [source], out, labels="old", molecule="h2", number=number, val=0.0
        )
        found[number] = [(r.group, r.split) for r in read_dataset(out).structures]
    assert found == {
        1: [("H2-000010", "train"), ("H2-000011", "train"), ("H2-000012", "test")],
        2: [("H2-000010", "test"), ("H2-000013", "train")],
    }


def test_molecules_are_chosen_by_name(tmp_path: Path) -> None:
    source = published(tmp_path)
    with pytest.raises(DataError, match="ethanol, h2; choose one with --molecule"):
        prepare_rmd17([source], tmp_path / "out.db", labels="old")
    with pytest.raises(DataError, match=r"no frames of uracil.*found ethanol, h2"):
        prepare_rmd17([source], tmp_path / "out.db", labels="old", molecule="uracil")


def test_files_of_other_splits_in_the_folder_are_not_read(tmp_path: Path) -> None:
    for number in (1, 2):
        molecule(tmp_path / f"rmd17_h2_train_{number:02d}.npz", [number])
    prepare_rmd17([tmp_path], tmp_path / "out.db", labels="old", number=2, val=0.0)
    (row,) = read_dataset(tmp_path / "out.db").structures
    assert row.group == "H2-000002"


def test_bad_files_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out.db"
    bare = molecule(tmp_path / "bare.npz", [1], old_energies=None)
    with pytest.raises(DataError, match=r"no old_energies.*--labels recomputed"):
        prepare_rmd17([bare], out, labels="old")
    (tmp_path / "noise.npz").write_bytes(b"noise")
    with pytest.raises(DataError, match=r"cannot read .*noise\.npz"):
        prepare_rmd17([tmp_path / "noise.npz"], out, labels="old")
    source = molecule(tmp_path / "h2.npz", [1])
    with pytest.raises(DataError, match=r"does not hold index_test_01\.csv and"):
        prepare_rmd17([source], out, labels="old", index_folder=tmp_path)
    (tmp_path / "index_train_01.csv").write_text("0\nzero\n")
    (tmp_path / "index_test_01.csv").write_text("")
    with pytest.raises(DataError, match=r"index_train_01\.csv, line 2: found 'zero'"):
        prepare_rmd17([source], out, labels="old", index_folder=tmp_path)
    (tmp_path / "index_train_01.csv").write_text("0\n")
    (tmp_path / "index_test_01.csv").write_text("7\n")
    with pytest.raises(DataError, match="frame 7 of the test list is not among the 1"):
        prepare_rmd17([source], out, labels="old", index_folder=tmp_path)


def test_ethanol_as_published(references: Path, tmp_path: Path) -> None:
    folder = references / "data/rmd17"
    if not folder.is_dir():
        pytest.skip("no rMD17 files")
    files = [folder / f"rmd17_ethanol_{split}_01.npz" for split in ("train", "test")]

    counts = prepare_rmd17(files, tmp_path / "out.aselmdb", labels="old")

    rows = read_dataset(tmp_path / "out.aselmdb").structures
    assert sum(counts.frames.values()) + counts.duplicates == 2000
    assert rows[0].atoms.get_chemical_formula() == "C2H6O"
    # forces of an isolated molecule add up to nothing, but for the grid of the DFT
    total = np.stack([row.forces for row in rows]).sum(axis=1)
    assert np.abs(total).max() < 0.02  # largest force: 7
