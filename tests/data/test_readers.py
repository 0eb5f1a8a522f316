"""Every format is read; every kind of broken file ends in one line."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from crack_md.data import read_structures
from crack_md.errors import DataError
from crack_md.input_files import open_database


@pytest.mark.parametrize(
    "name", ["a.extxyz", "a.xyz", "a.traj", "a.cif", "POSCAR", "a.vasp", "a.db"]
)
def test_formats_are_read(tmp_path, name):
    atoms = bulk("Cu", cubic=True)
    path = tmp_path / name
    kind = {"POSCAR": "vasp", "a.vasp": "vasp"}.get(name)
    write(path, atoms, format="extxyz" if name == "a.xyz" else kind)

    (read,) = read_structures(path)

    np.testing.assert_allclose(read.positions, atoms.positions, atol=1e-6)
    assert read.pbc.all()


def test_lmdb_databases_keep_keys_and_data(tmp_path):
    path = tmp_path / "a.aselmdb"
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5, forces=np.zeros((1, 3)))
    with open_database(path, readonly=False) as database:
        database.write(atoms, group="copper", data={"x": np.arange(3)})

    (read,) = read_structures(path)

    assert read.info["group"] == "copper"
    assert list(read.info["x"]) == [0, 1, 2]
    assert read.get_potential_energy() == -1.5


def test_folders_are_read_in_the_order_of_names(tmp_path):
    for symbol in ("Pt", "Ag"):
        write(tmp_path / f"{symbol}.cif", bulk(symbol, cubic=True))
    (tmp_path / "notes.txt").write_text("no structure")

    symbols = [atoms.get_chemical_formula() for atoms in read_structures(tmp_path)]

    assert symbols == ["Ag4", "Pt4"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no such file: .*gone\.db"):
        list(read_structures(tmp_path / "gone.db"))


@pytest.mark.parametrize("name", ["a.db", "a.extxyz", "a.aselmdb"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()

    with pytest.raises(DataError, match="is an empty file"):
        list(read_structures(tmp_path / name))


@pytest.mark.parametrize("name", ["a.db", "a.extxyz", "a.aselmdb", "a.traj", "a.cif"])
def test_an_unreadable_file_is_refused_in_one_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"this is not a structure\n" * 200)

    with pytest.raises(DataError) as error:
        list(read_structures(path))

    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cut_lmdb_file_is_refused_before_it_kills_the_process(tmp_path):
    path = tmp_path / "a.aselmdb"
    with open_database(path, readonly=False) as database:
        for _ in range(20):
            database.write(bulk("Cu"), data={"x": np.random.default_rng(0).random(900)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(DataError, match=r"it has \d+ of \d+ bytes"):
        list(read_structures(path))


def test_a_database_without_rows_is_refused(tmp_path):
    path = tmp_path / "a.db"
    with connect(path) as database:
        database.write(Atoms("Cu"))
        del database[1]

    with pytest.raises(DataError, match="contains no structures"):
        list(read_structures(path))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no structures"):
        list(read_structures(tmp_path))


def _nan() -> Atoms:
    atoms = molecule("H2O")
    atoms.positions[1, 2] = np.nan
    return atoms


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (_nan(), "position of atom 1 is not a finite number"),
        (Atoms("Cu", pbc=True), "cell vector of length zero"),
        (Atoms("X"), "without an element"),
        (Atoms(), "has no atoms"),
    ],
)
def test_unusable_structures_are_named_by_their_number(tmp_path, atoms, message):
    path = tmp_path / "a.traj"
    write(path, [bulk("Cu"), atoms])

    with pytest.raises(DataError, match=f"structure 2: .*{message}"):
        list(read_structures(path))


def test_labels_leave_out_starts_beside_relaxed_structures(tmp_path):
    """Where a relaxation has ended, its start is not read as well."""
    start, relaxed = bulk("Cu", cubic=True), bulk("Cu", cubic=True, a=3.7)
    for name, atoms in (("POSCAR", start), ("CONTCAR", relaxed)):
        write(tmp_path / name, atoms, format="vasp")
    (only,) = read_structures(tmp_path)
    assert only.cell.lengths() == pytest.approx([3.7] * 3)
