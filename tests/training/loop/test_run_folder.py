"""The run folder: one writer, metrics never twice, one line for what cannot go on."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from crack_md.errors import DataError
from crack_md.training.config import check_config
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import train
from tests.locking import held_by_another_process
from tests.training.factories import recipe


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def start(dataset: Path, folder: Path, **run: Any) -> None:
    train(check_config(recipe(dataset, folder, **run), source="test"), quiet=True)


def test_a_second_run_in_a_folder_is_refused(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with (
        held_by_another_process(folder / ".lock"),
        pytest.raises(DataError, match="another run is writing to"),
    ):
        start(dataset, folder)
    start(dataset, folder)
    assert (folder / "student.pt").exists()


def test_a_finished_run_that_is_started_again_logs_nothing_twice(
    dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    start(dataset, folder)
    once = lines(folder)
    assert any("val_n_frames" in record for record in once)
    start(dataset, folder)
    assert lines(folder) == once


def test_what_was_logged_before_the_first_checkpoint_is_logged_once(
    dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    start(dataset, folder)
    n_records = len(lines(folder))
    (folder / "checkpoint.pt").unlink()  # as if killed before it
    start(dataset, folder)
    assert len(lines(folder)) == n_records


def test_a_torn_last_line_is_repaired(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log({"step": 1, "loss": 2.0})
    with folder.metrics_file.open("a") as file:
        file.write('{"step": 2, "lo')
    assert folder.metrics() == [{"step": 1, "loss": 2.0}]
    folder.forget_after(1)
    folder.log({"step": 2, "loss": 1.0})
    assert [record["step"] for record in lines(tmp_path)] == [1, 2]
    folder.metrics_file.write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(DataError, match="damaged"):
        folder.metrics()


def test_temporary_files_of_killed_runs_are_removed(
    dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".checkpoint.pt.123", ".student.pt.x8s", ".metrics.jsonl.7"):
        (folder / name).write_text("half")
    start(dataset, folder)
    assert {path.name for path in folder.iterdir() if path.name[0] == "."} == {".lock"}


def test_a_folder_deleted_in_mid_run_is_one_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    shutil.rmtree(folder.path)
    with pytest.raises(DataError, match=r"cannot write to .*No such file"):
        folder.log({"step": 1})
    with pytest.raises(DataError, match="cannot write to"):
        folder.save_checkpoint({"step": 1})


def test_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.save_checkpoint({"step": 1})

    def full(*_: object) -> None:
        raise RuntimeError(
            "[enforce fail at inline_container.cc:424] PytorchStreamWriter"
        )

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(DataError, match=r"the disk is full.*command continues"):
            folder.save_checkpoint({"step": 2})
    state = folder.load_checkpoint()
    assert state is not None
    assert state["step"] == 1

    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", no_space)
    with pytest.raises(DataError, match="No space left"):
        folder.log({"step": 1})
