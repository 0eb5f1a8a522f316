"""One process writes to a file at a time, and whatever ends it can be resumed."""

import errno
import sqlite3
from pathlib import Path
from typing import Any

import ase.db
import pytest
from ase import Atoms
from ase.build import bulk

from crack_md import files
from crack_md.data import writer as module
from crack_md.data.augment import frames
from crack_md.data.augment.frames import write_frames
from crack_md.data.augment.recipe import Recipe
from crack_md.data.labelling import label_structures
from crack_md.data.readers import read_structures
from crack_md.data.writer import RowWriter
from crack_md.errors import DataError
from tests.locking import held_by_another_process

JOB = {"what": "test"}
SUFFIXES = (".aselmdb", ".db")


def rows(n: int = 2) -> list[Atoms]:
    return [bulk("Cu", a=3.5 + number / 10) for number in range(n)]


@pytest.fixture
def crystals(tmp_path: Path) -> Path:
    path = tmp_path / "crystals.db"
    database = ase.db.connect(path)
    for atoms in rows(3):
        database.write(atoms)
    return path


def test_a_second_process_is_refused(tmp_path: Path, crystals: Path) -> None:
    out = tmp_path / "train.db"
    with held_by_another_process(tmp_path / ".train.db.lock"):
        with pytest.raises(DataError, match=r"another run is writing to '.*train\.db'"):
            label_structures([crystals], out, teacher="emt")
        recipe = Recipe.model_validate({"variants": {"rattle": {"frames": 2}}})
        with pytest.raises(DataError, match="another run is writing to"):
            write_frames(recipe, out, sources=[crystals])
    assert label_structures([crystals], out, teacher="emt").labelled == 3
    assert len(list(read_structures(out))) == 3


def test_a_disk_without_locks_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.FileLock, "acquire", no_locks)
    with pytest.raises(DataError, match=r"cannot lock '.*' against other runs"):
        RowWriter(tmp_path / "out.db", job=JOB)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("ended", ["_remove_leftovers", "replace"])
def test_a_kill_while_the_database_is_made_leaves_a_new_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, ended: str
) -> None:
    path = tmp_path / f"out{suffix}"

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module if ended.startswith("_") else Path, ended, kill)
        with pytest.raises(KeyboardInterrupt):
            RowWriter(path, job=JOB).append(rows(), done=2)
    writer = RowWriter(path, job={"what": "another job"})  # nothing was begun
    assert writer.done == 0
    writer.append(rows(), done=2)
    writer.finish({})
    assert len(list(read_structures(path))) == 2
    left = {file.name for file in tmp_path.iterdir()}
    assert left <= {f"out{suffix}", f".out{suffix}.lock", f"out{suffix}-lock"}


def test_an_empty_database_of_an_older_version_is_begun_again(tmp_path: Path) -> None:
    ase.db.connect(tmp_path / "out.partial.db").count()  # made, and nothing written
    (tmp_path / "out.partial.db").touch()
    writer = RowWriter(tmp_path / "out.db", job=JOB)
    writer.append(rows(), done=2)
    assert (writer.done, writer.n_rows) == (2, 2)


def test_a_full_disk_is_one_line_and_the_command_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.db"
    RowWriter(path, job=JOB).append(rows(), done=2)

    def full(*_: object, **__: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ase.db.sqlite.SQLite3Database, "_write", full)
        with pytest.raises(DataError, match=r"full; free some space.*after 2 items"):
            RowWriter(path, job=JOB).append(rows(), done=4)
    writer = RowWriter(path, job=JOB)
    assert writer.done == writer.n_rows == 2


def test_temporary_files_of_killed_runs_are_removed(tmp_path: Path) -> None:
    old = tmp_path / ".out.extxyz.12345"
    other = tmp_path / ".other.extxyz.12345"
    for file in (old, other):
        file.write_text("half")
    RowWriter(tmp_path / "out.extxyz", job=JOB)
    assert not old.exists()
    assert other.exists()


def test_inputs_are_known_by_their_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "one.xyz", tmp_path / "out.db"
    rows(1)[0].write(source, format="extxyz")
    text = source.read_text()
    recipe = Recipe.model_validate({"variants": {"rattle": {"frames": 2}}})
    jobs = []

    class Stopped(RowWriter):
        def __init__(self, path: Path, *, job: Any, **options: Any) -> None:
            jobs.append(job)
            super().__init__(path, job=job, **options)

    monkeypatch.setattr(frames, "RowWriter", Stopped)
    write_frames(recipe, out, sources=[source])
    source.write_text(text.replace("1.75", "1.76"))  # as many bytes
    write_frames(recipe, out, sources=[source], overwrite=True)
    assert jobs[0] != jobs[1]
    RowWriter(tmp_path / "b.db", job=jobs[0]).append(rows(), done=1)
    with pytest.raises(DataError, match="begun with other inputs"):
        RowWriter(tmp_path / "b.db", job=jobs[1])
    # a file begun before contents were part of a job is continued
    older = {key: value for key, value in jobs[0].items() if key != "contents"}
    RowWriter(tmp_path / "c.db", job=older).append(rows(), done=1)
    assert RowWriter(tmp_path / "c.db", job=jobs[0]).done == 1
