import os
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.db import connect
from ase.optimize import BFGS

from crack_md.errors import ConfigError, DataError
from crack_md.structures import input_sha256, read_entries, structure_files

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


def test_missing_file_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_entries(tmp_path / "absent.db")
    (tmp_path / "notes.txt").write_text("no structure")
    with pytest.raises(DataError, match=r"folder.*holds no structures.*CONTCAR"):
        read_entries(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder as people keep them: calculations, collections, notes."""
    for name in ("one/POSCAR", "one/CONTCAR", "two/POSCAR", "more/two.extxyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    ase.io.write(tmp_path / "one" / "POSCAR", SLAB)
    ase.io.write(tmp_path / "one" / "CONTCAR", SLAB * (2, 1, 1))
    ase.io.write(tmp_path / "two" / "POSCAR", SLAB)
    (tmp_path / "two" / "CONTCAR").touch()  # VASP was killed
    ase.io.write(tmp_path / "more" / "two.extxyz", [SLAB, SLAB])
    ase.io.write(tmp_path / "Cu.cif", SLAB)
    (tmp_path / "damaged.cif").write_text("nothing")
    (tmp_path / "OUTCAR").write_text("nothing")
    (tmp_path / ".hidden").mkdir()
    ase.io.write(tmp_path / ".hidden" / "old.cif", SLAB)
    connect(tmp_path / "empty.db").count()
    return tmp_path


def test_folder_is_read_to_its_depth(folder: Path) -> None:
    entries = {entry.name: entry for entry in read_entries(folder)}
    assert list(entries) == [
        *("Cu", "damaged", "empty", "more/two-1", "more/two-2", "one", "two")
    ]
    assert "no structures" in entries["empty"].error
    assert entries["damaged"].atoms is None
    assert "damaged.cif" in entries["damaged"].error
    relaxed, given = entries["one"].atoms, entries["two"].atoms
    assert relaxed is not None
    assert given is not None
    assert (len(relaxed), len(given)) == (8, 4)


def test_hash_of_a_folder_knows_names_and_content(folder: Path) -> None:
    hashes = {input_sha256(folder)}
    (folder / "OUTCAR").write_text("other")
    assert {input_sha256(folder)} == hashes
    (folder / "Cu.cif").rename(folder / "Ni.cif")
    hashes.add(input_sha256(folder))
    ase.io.write(folder / "Ni.cif", SLAB * (1, 2, 1))
    hashes.add(input_sha256(folder))
    assert len(hashes) == 3


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "slabs.db"
    database = connect(path)
    for number, metal in enumerate(("Pt", "Cu", "Pt")):
        atoms = SLAB.copy()
        atoms.symbols[:] = metal
        database.write(
            atoms, name=f"{metal}-{number}", metal=metal, strain=0.1 * number
        )
    return path


@pytest.mark.parametrize(
    ("select", "names"),
    [
        (None, ["Pt-0", "Cu-1", "Pt-2"]),
        ("metal=Pt", ["Pt-0", "Pt-2"]),
        ("metal=Pt,strain<0.1", ["Pt-0"]),
        ("Cu", ["Cu-1"]),
        ("id=3", ["Pt-2"]),
    ],
)
def test_selected_rows(table: Path, select: str | None, names: list[str]) -> None:
    assert [entry.name for entry in read_entries(table, select=select)] == names


def test_selections_that_make_no_sense(table: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no structures that match --select 'metal=Au'"):
        read_entries(table, select="metal=Au")
    with pytest.raises(ConfigError, match="cannot read --select 'a=b=c'"):
        read_entries(table, select="a=b=c")
    ase.io.write(tmp_path / "a.cif", SLAB)
    with pytest.raises(ConfigError, match="--select works on ASE databases"):
        read_entries(tmp_path / "a.cif", select="metal=Pt")


def test_folders_hold_contcars_by_suffix_and_json_databases(tmp_path: Path) -> None:
    for name in ("POSCAR_Pd", "CONTCAR_Pd", "POSCAR-Au", "b.CIF"):
        kind = "cif" if name.endswith("CIF") else "vasp"
        ase.io.write(tmp_path / name, SLAB, format=kind)
    connect(tmp_path / "slabs.json").write(SLAB)
    (tmp_path / "summary.json").write_text('{"counts": {}}')
    found = [path.name for path in structure_files(tmp_path)]
    assert found == ["CONTCAR_Pd", "POSCAR-Au", "b.CIF", "slabs.json"]


def test_cut_lmdb_is_refused_before_it_is_mapped(tmp_path: Path) -> None:
    """Reading past the end of a mapped file kills the process (SIGBUS)."""
    path = tmp_path / "slabs.aselmdb"
    with connect(path, type="aselmdb") as database:
        for _ in range(50):
            database.write(SLAB)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"it has \d+ of \d+ bytes"):
        read_entries(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX")
@pytest.mark.parametrize("suffix", ["extxyz", "db", "aselmdb", "cif"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    for read in (read_entries, input_sha256):
        with pytest.raises(DataError, match="is a pipe or a device"):
            read(tmp_path / f"pipe.{suffix}")


@pytest.mark.parametrize("n_whole", [0, 2])
def test_counts_beyond_the_file_are_no_search(tmp_path: Path, n_whole: int) -> None:
    path = tmp_path / "few.xyz"
    frame = "1\n\nCu 0 0 0\n"
    path.write_text(n_whole * frame + "1000000000000\n\nCu 0 0 0\n")
    with pytest.raises(DataError, match=f"frame {n_whole + 1} says it has 1000000"):
        read_entries(path)


def test_frames_before_one_that_is_cut_short_are_read(tmp_path: Path) -> None:
    path = tmp_path / "cut.extxyz"
    ase.io.write(path, [SLAB, SLAB])
    path.write_text(path.read_text()[:-60])
    good, bad = read_entries(path)
    assert good.atoms is not None
    assert bad.error


def relaxation(path: Path, steps: int = 4) -> Atoms:
    """Write a trajectory as ASE's optimizers do; return its last frame."""
    atoms = fcc111("Cu", (1, 1, 3), a=3.5, vacuum=6.0, periodic=True)
    atoms.info.clear()
    atoms.calc = EMT()
    BFGS(atoms, trajectory=str(path), logfile=None).run(fmax=1e-9, steps=steps)
    return atoms


def test_trajectory_is_one_structure(tmp_path: Path) -> None:
    last = relaxation(tmp_path / "relaxation.traj")
    (entry,) = read_entries(tmp_path / "relaxation.traj", frames="last")
    assert entry.name == "relaxation-1"
    assert entry.atoms is not None
    assert entry.atoms.positions == pytest.approx(last.positions)
    assert entry.notes == (
        "the last of 5 frames of a trajectory, --frames all takes each",
    )
    assert len(read_entries(tmp_path / "relaxation.traj", frames="all")) == 5


def test_trajectory_is_seen_in_any_format(tmp_path: Path) -> None:
    relaxation(tmp_path / "run.traj")
    frames = ase.io.read(tmp_path / "run.traj", ":")
    other = bulk("Pt", cubic=True)
    ase.io.write(tmp_path / "all.xyz", [*frames, other], format="extxyz")
    first, second = read_entries(tmp_path / "all.xyz", frames="last")
    assert first.atoms is not None
    assert second.atoms is not None
    assert first.atoms.positions == pytest.approx(frames[-1].positions)
    assert second.atoms.symbols[0] == "Pt"
    assert (first.name, second.name) == ("all-1", "all-2")


def test_list_of_slabs_is_no_trajectory(tmp_path: Path) -> None:
    """Other elements, another cell, another name, or farther apart."""
    slab = fcc111("Cu", (2, 1, 3), vacuum=6.0, periodic=True)
    slab.info.clear()
    alloy, strained, named, moved = (slab.copy() for _ in range(4))
    alloy.numbers[0] = 78
    strained.set_cell(1.01 * slab.cell, scale_atoms=True)
    named.info["name"] = "mine"
    moved.positions[-1, 2] += 1.5
    ase.io.write(tmp_path / "a.traj", [slab, alloy, strained, slab, named, moved])
    assert len(read_entries(tmp_path / "a.traj", frames="last")) == 6


@pytest.mark.parametrize("shares", [{"Pt": 0.4, "Ru": 0.6}, {"Pt": 0.75}])
def test_partial_occupancy_is_refused(tmp_path: Path, shares: dict[str, float]) -> None:
    cell = "".join(f"_cell_length_{axis} 3.9\n" for axis in "abc")
    cell += "".join(f"_cell_angle_{a} 90\n" for a in ("alpha", "beta", "gamma"))
    columns = ("label", "type_symbol", "occupancy", "fract_x", "fract_y", "fract_z")
    sites = "".join(f"{s}1 {s} {share} 0 0 0\n" for s, share in shares.items())
    text = f"data_x\n{cell}loop_\n" + "".join(f"_atom_site_{c}\n" for c in columns)
    (tmp_path / "x.cif").write_text(text + sites)
    (entry,) = read_entries(tmp_path / "x.cif")
    assert entry.atoms is None
    assert entry.status == "partial_occupancy"
    assert "Pt 0" in entry.error
    (tmp_path / "x.cif").write_text(text + "Pt1 Pt 1.0 0 0 0\n")
    assert read_entries(tmp_path / "x.cif")[0].atoms is not None


def test_files_of_a_folder_that_are_left_out_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0, periodic=True)
    for name in ("POSCAR_Pd", "POSCAR-Au", "b.CONTCAR", "CONTCAR.1"):
        ase.io.write(tmp_path / name, slab, format="vasp")
    for name in ("c.gen", "d.pdb", "e.xsd", "f.json", "g.CIF"):
        ase.io.write(tmp_path / name, slab)
    (tmp_path / "notes.txt").write_text("no structure")
    entries = read_entries(tmp_path)
    assert [entry.error for entry in entries if entry.atoms is None] == []
    assert len(entries) == 9
    assert caplog.messages == [
        f"left out of '{tmp_path}', as no structures or replaced by a CONTCAR: "
        "notes.txt"
    ]


def test_an_occupancy_that_is_no_number_is_refused_like_a_part(tmp_path):
    path = tmp_path / "damaged.cif"
    ase.io.write(path, bulk("Cu", cubic=True))
    text = path.read_text()
    assert text.count("1.0000") >= 4
    path.write_text(text.replace("1.0000", "1.0x00"))

    (entry,) = read_entries(path)

    assert entry.atoms is None
    assert entry.status in ("partial_occupancy", "unreadable")
