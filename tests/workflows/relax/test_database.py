"""Results on full disks, in files that others hold, and on servers."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import ase.db.sqlite
import pytest
from ase.build import fcc111
from ase.db import connect

from crack_md.errors import ConfigError, DataError
from crack_md.structures import StructureEntry, read_entries
from crack_md.workflows.relax import store
from crack_md.workflows.relax import store as results_database
from crack_md.workflows.relax.store import (
    RelaxationRecord,
    check_address,
    open_store,
    redact_address,
)
from tests.workflows.screening.small_screenings import NO_PLATINUM, fast, run, slab

CONDITIONS = fast().conditions(NO_PLATINUM)
RECORD = RelaxationRecord("k", "a", "", "converged")
URL = "postgresql://me:secret@example.org:5432/screens"


def journal_mode(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def test_others_read_what_is_written_and_one_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with open_store(tmp_path, CONDITIONS) as opened:
        assert journal_mode(path) == "wal"
        reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        with closing(reader):
            reader.execute("BEGIN")
            count = "SELECT count(*) FROM systems"
            assert reader.execute(count).fetchone() == (0,)
            opened.put(RECORD, slab("Cu"))  # waits for no reader
            reader.execute("COMMIT")
            assert reader.execute(count).fetchone() == (1,)
    assert journal_mode(path) == "delete"
    assert {p.name for p in tmp_path.iterdir()} == {".lock", "results.db"}


def test_file_that_a_killed_run_left_is_whole(tmp_path: Path) -> None:
    """The write-ahead log beside the file holds what was written last."""
    killed = tmp_path / "killed"
    killed.mkdir()
    with open_store(tmp_path / "run", CONDITIONS) as opened:
        opened.put(RECORD, slab("Cu"))
        for name in ("results.db", "results.db-wal"):
            shutil.copy(tmp_path / "run" / name, killed / name)
    with open_store(killed, CONDITIONS) as found:
        assert found.record("k") == RECORD


def test_readers_on_the_way_do_not_stop_a_screening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_database, "PATIENCE_S", 0.01)
    with open_store(tmp_path, CONDITIONS):
        pass
    with closing(sqlite3.connect(tmp_path / "results.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM systems").fetchone()
        with open_store(tmp_path, CONDITIONS):
            assert journal_mode(tmp_path / "results.db") == "delete"


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """ASE waits 20 s for a lock."""
    connect_to = sqlite3.connect
    monkeypatch.setattr(
        ase.db.sqlite.sqlite3, "connect", lambda path, timeout=0: connect_to(path)
    )
    monkeypatch.setattr(
        ase.db.sqlite.SQLite3Database,
        "_connect",
        lambda self: connect_to(self.filename, timeout=0.05),
    )


@pytest.mark.usefixtures("_impatient")
def test_file_that_somebody_else_holds(tmp_path: Path) -> None:
    entries = [StructureEntry("Cu", slab("Cu"))]
    with open_store(tmp_path, CONDITIONS):
        pass
    with closing(sqlite3.connect(tmp_path / "results.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        message = r"results\.db' is in use by another program.*run the same command"
        with pytest.raises(DataError, match=message):
            run(tmp_path, entries, model=NO_PLATINUM)
    with open_store(tmp_path, CONDITIONS) as opened:
        opened.put(RECORD, slab("Cu"))
        with closing(sqlite3.connect(tmp_path / "results.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DataError, match=r"locked.*close the program that"):
                opened.put(RelaxationRecord("l", "a", "", "converged"), slab("Cu"))
    result = run(tmp_path, entries, model=NO_PLATINUM)
    assert result.n_relaxed == 5
    assert len(connect(tmp_path / "results.db")) == 6


@pytest.mark.usefixtures("_impatient")
def test_input_that_somebody_else_writes(tmp_path: Path) -> None:
    """A writer in the middle of a row changes nothing; one that locks is an error."""
    path = tmp_path / "slabs.db"
    connect(path).write(slab("Cu"), name="first")
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM systems")
        assert [entry.name for entry in read_entries(path)] == ["first"]
        other.execute("ROLLBACK")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DataError, match=r"slabs\.db' is being written by another"):
            read_entries(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if (
        os.geteuid()
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_is_one_error_and_the_run_goes_on_after_it(
    small_disk: Path, tmp_path: Path
) -> None:
    metals = [("Cu", 3.6), ("Ag", 4.1), ("Au", 4.1), ("Ni", 3.5)]
    entries = [
        StructureEntry(
            f"{m}-{i}", fcc111(m, (1, 1, 3), a=a * (1 + i / 100), vacuum=8.0)
        )
        for m, a in metals
        for i in range(3)
    ]
    undisturbed = tmp_path / "undisturbed"
    run(undisturbed, entries, model=NO_PLATINUM)
    out = small_disk / "out"
    with pytest.raises(DataError, match=r"(?s)cannot write.*(full|I/O).*make room"):
        run(out, entries, model=NO_PLATINUM)
    grow = ["mount", "-o", "remount,size=16m", str(small_disk)]
    subprocess.run(grow, check=True)
    result = run(out, entries, model=NO_PLATINUM)
    assert result.n_reused > 3
    for name in ("results.csv", "sites.csv"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()


# --------------------------------------------------------------------------- servers


def test_address_of_a_server_goes_to_ase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server is needed: what ASE is asked to open is a file here."""
    asked = []

    def to_file(address: str) -> object:
        asked.append(address)
        return connect(tmp_path / "server.db")

    monkeypatch.setattr(results_database, "connect", to_file)
    with open_store(tmp_path / "out", CONDITIONS, address=URL) as opened:
        opened.put(RECORD, slab("Cu"))
    with open_store(tmp_path / "out", CONDITIONS, address=URL) as opened:
        assert opened.record("k") == RECORD
    assert asked == [URL, URL]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_server_that_is_not_there_is_one_error_without_the_password(
    tmp_path: Path,
) -> None:
    address = "postgresql://me:secret@127.0.0.1:1/screens"
    place = r"postgresql://me:\*\*\*@127\.0\.0\.1:1/screens"
    with (
        pytest.raises(DataError, match=rf"{place}.*is the server running") as error,
        open_store(tmp_path, CONDITIONS, address=address),
    ):
        pass
    assert "secret" not in str(error.value)


def test_addresses() -> None:
    check_address(URL)
    assert redact_address(URL) == "postgresql://me:***@example.org:5432/screens"
    assert redact_address("postgresql://me@host/db") == "postgresql://me@host/db"
    assert redact_address(Path("/a:b@c/results.db")) == "/a:b@c/results.db"
    with pytest.raises(ConfigError, match=r"--db is 'results\.db'.*postgresql://"):
        check_address("results.db")


def test_screening_on_a_server(tmp_path: Path) -> None:
    """Where a server is named, it is used: CRACK_MD_POSTGRESQL=postgresql://..."""
    address = os.environ.get("CRACK_MD_POSTGRESQL")
    if address is None:
        pytest.skip("no server in CRACK_MD_POSTGRESQL")
    with open_store(tmp_path, CONDITIONS, address=address) as opened:
        opened.put(RECORD, slab("Cu"), adsorbate="O")
        moved = opened.atoms("k").positions
    with open_store(tmp_path, CONDITIONS, address=address) as opened:
        assert opened.record("k") == RECORD
        assert (opened.atoms("k").positions == moved).all()
    with (
        pytest.raises(DataError, match="holds results of other settings"),
        open_store(tmp_path, {**CONDITIONS, "steps": 1}, address=address),
    ):
        pass
    assert store.FILE_NAME not in os.listdir(tmp_path)
