from pathlib import Path

import ase.io
import pytest
from ase.build import fcc111
from ase.db import connect

from crack_md.errors import DataError
from crack_md.workflows.inputs import read_entries

SLAB = fcc111("Pt", (1, 1, 4), vacuum=8.0, periodic=True)
SLAB.info.clear()


def test_database_rows_carry_their_names(tmp_path: Path) -> None:
    path = tmp_path / "slabs.db"
    database = connect(path)
    database.write(SLAB, name="Pt(111)")
    database.write(SLAB, name="Pt(111)")
    database.write(SLAB)
    names = [entry.name for entry in read_entries(path)]
    assert names == ["Pt(111) #1", "Pt(111) #2", "slabs-3"]


@pytest.mark.parametrize("name", ["a.extxyz", "a.traj", "a.cif", "POSCAR"])
def test_reads_what_ase_reads(tmp_path: Path, name: str) -> None:
    ase.io.write(tmp_path / name, SLAB)
    (entry,) = read_entries(tmp_path / name)
    assert entry.atoms is not None
    assert len(entry.atoms) == 4
    assert entry.name == f"{Path(name).stem}-1"


def test_reads_aselmdb(tmp_path: Path) -> None:
    pytest.importorskip("ase_db_backends")
    with connect(tmp_path / "slabs.aselmdb", type="aselmdb") as database:
        database.write(SLAB, name="Pt")
    (entry,) = read_entries(tmp_path / "slabs.aselmdb")
    assert entry.name == "Pt"


def test_damaged_frame_becomes_a_row(tmp_path: Path) -> None:
    path = tmp_path / "two.extxyz"
    ase.io.write(path, [SLAB, SLAB])
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-2]))
    good, bad = read_entries(path)
    assert good.atoms is not None
    assert bad.atoms is None
    assert "frame 2" in bad.error


def test_damaged_database_row_becomes_a_row(tmp_path: Path) -> None:
    path = tmp_path / "slabs.db"
    database = connect(path)
    database.write(SLAB, name="good")
    database.write(SLAB, name="bad")
    with database.managed_connection() as connection:
        connection.execute("UPDATE systems SET positions = X'00' WHERE id = 2")
    good, bad = read_entries(path)
    assert good.atoms is not None
    assert bad.atoms is None
    assert "row 2" in bad.error


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.extxyz", b"", "empty.extxyz"),
        ("noise.extxyz", b"\x00\x01nothing", "cannot read"),
        ("noise.db", b"not a database at all" * 20, "cannot read"),
        ("empty.db", b"", "no structures"),
        ("noise.xyzabc", b"words", "cannot read"),
    ],
)
def test_hopeless_files(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_entries(path)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_entries(tmp_path / "absent.db")
    with pytest.raises(DataError, match="is a folder"):
        read_entries(tmp_path)
