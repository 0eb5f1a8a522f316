"""``crack-md train`` and ``crack-md evaluate`` as a user calls them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from crack_md.cli import main
from tests.training.factories import labelled, write_dataset

ROOT = Path(__file__).parents[2]
TINY = ROOT / "configs" / "tiny.yaml"


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: Any
) -> tuple[int, str, str]:
    """Return exit code, output and error output of one command."""
    monkeypatch.setattr("sys.argv", ["crack-md", *map(str, args)])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from crack_md.training.config import load_config
    from crack_md.training.loop.train import train

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    data = ROOT / "tests" / "data" / "tiny.extxyz"
    changes = [f"run.folder={folder}", f"data.path={data}", "run.max_steps=4"]
    train(load_config(TINY, changes), quiet=True)
    return folder


def test_train_writes_a_student(monkeypatch, capsys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "run"
    code, _, err = call(
        monkeypatch,
        capsys,
        "train",
        TINY,
        "--set",
        f"run.folder={folder}",
        "--set",
        "run.max_steps=2",
    )
    assert code == 0
    assert "6 frames to train on, 3 to validate" in err
    assert (folder / "student.pt").exists()
    hidden = [path for path in folder.glob(".*") if path.name != ".lock"]
    assert not hidden


def test_misspelt_key_is_one_line(monkeypatch, capsys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = call(
        monkeypatch, capsys, "train", TINY, "--set", "optimizer.learning_rate=1"
    )
    assert code == 2
    assert out == ""
    assert "optimizer.learning_rate: Extra inputs are not permitted" in err
    assert err.count("\n") == 1


def test_missing_dataset_is_one_line(monkeypatch, capsys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, _, err = call(
        monkeypatch,
        capsys,
        "train",
        TINY,
        "--set",
        f"data.path={tmp_path / 'none.aselmdb'}",
        "--set",
        f"run.folder={tmp_path / 'run'}",
    )
    assert code == 2
    assert "none.aselmdb" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_evaluate_prints_json(monkeypatch, capsys, run_folder: Path) -> None:  # type: ignore[no-untyped-def]
    data = ROOT / "tests" / "data" / "tiny.extxyz"
    code, out, _ = call(
        monkeypatch, capsys, "evaluate", run_folder / "student.pt", data, "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert found["all"]["n_frames"] == 3
    assert found["all"]["embedding_cosine"] is not None
    assert set(found["kinds"]) == {"rattled", "relaxed"}
    baseline = found["all"]["zero_force_baseline_meV_per_A"]
    assert baseline == pytest.approx(791.97, abs=0.1)


def test_evaluate_prints_a_table(  # type: ignore[no-untyped-def]
    monkeypatch, capsys, run_folder: Path, tmp_path: Path
) -> None:
    alone = Path(shutil.copy(run_folder / "student.pt", tmp_path))
    data = ROOT / "tests" / "data" / "tiny.extxyz"
    code, out, _ = call(monkeypatch, capsys, "evaluate", alone, data, "--split", "all")
    assert code == 0
    assert "meV/Å" in out
    assert "unrelaxed" in out
    assert "no embedding metrics: the linear head P is not at hand" in out


def test_evaluate_names_what_is_missing(  # type: ignore[no-untyped-def]
    monkeypatch, capsys, run_folder: Path, tmp_path: Path
) -> None:
    data = write_dataset(tmp_path / "a.extxyz", [labelled(0, with_teacher=False)])
    student = run_folder / "student.pt"
    code, _, err = call(monkeypatch, capsys, "evaluate", student, data)
    assert code == 2
    assert "has no frames of split 'test'" in err
    code, _, err = call(
        monkeypatch,
        capsys,
        "evaluate",
        student,
        data,
        "--split",
        "all",
        "--against",
        "teacher",
    )
    assert code == 2
    assert "without teacher labels" in err


def test_help_speaks_to_chemists(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    for command in ("train", "evaluate"):
        code, out, _ = call(monkeypatch, capsys, command, "--help")
        assert code == 0
        assert "crack-md" in out
