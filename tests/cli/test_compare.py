"""``crack-md compare`` as a user calls it."""

from pathlib import Path

import pytest
import yaml

from crack_md.cli import main

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "tiny.extxyz"


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: object
) -> tuple[int, str, str]:
    """Return exit code, output and error output of one command."""
    monkeypatch.setattr("sys.argv", ["crack-md", "compare", *map(str, args)])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def cells(line: str) -> list[str]:
    """Return the cells of a line of a table, but for those of the rule."""
    if not line.startswith("|"):
        return []
    return [cell for cell in map(str.strip, line.split("|")) if cell.strip("-:")]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    base = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text())
    base["data"]["path"] = str(DATA)
    base["run"] |= {"max_steps": 1, "log_every": 1}
    tree = {
        "base": base,
        "methods": {
            "works": {"optimizer": {"lr": 1e-3}},
            "fails": {"student": {"init_from": str(tmp_path / "none.pt")}},
        },
        "seeds": [1],
        "folder": str(tmp_path / "study"),
        "evaluate": {"path": str(DATA)},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def test_tables_and_figures_are_written(  # type: ignore[no-untyped-def]
    monkeypatch, capsys, study: Path
) -> None:
    code, out, err = call(monkeypatch, capsys, study)
    folder = study.parent / "study"
    assert code == 1  # not all methods have a result
    written = (folder / "table.md").read_text()
    assert max(map(len, out.splitlines())) <= 80 < max(map(len, written.splitlines()))
    shown = {cell for line in out.splitlines() for cell in cells(line)}
    for line in written.splitlines():
        assert shown >= set(cells(line)), "every cell is in some part of its table"
    assert "[1/2] works 1-steps seed 1: " in err
    assert "[2/2] fails 1-steps seed 1: failed: " in err
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names == {"table.md", "table.csv", "runs.csv", "summary.json", "figure.png"}


def test_table_only_trains_nothing(  # type: ignore[no-untyped-def]
    monkeypatch, capsys, study: Path
) -> None:
    code, out, err = call(monkeypatch, capsys, study, "--table-only")
    assert (code, err) == (0, "")
    assert ["works", "0/1"] in map(cells, out.splitlines())
    assert not (study.parent / "study" / "works").exists()


def test_only_and_set_choose(  # type: ignore[no-untyped-def]
    monkeypatch, capsys, study: Path
) -> None:
    changes = ["--set", "budgets=[{max_steps: 1}, {max_steps: 2}]", "--set", "title=Hi"]
    code, out, _ = call(monkeypatch, capsys, study, "--only", "works", *changes)
    folder = study.parent / "study"
    assert code == 0
    assert out.startswith("## Hi\n")
    assert "fails" not in out
    assert sorted(path.name for path in (folder / "works").iterdir()) == [
        "1-steps",
        "2-steps",
    ]
    assert (folder / "curve.png").exists()


def test_mistakes_are_one_line(  # type: ignore[no-untyped-def]
    monkeypatch, capsys, study: Path, tmp_path: Path
) -> None:
    code, _, err = call(monkeypatch, capsys, study, "--only", "n2n")
    assert (code, err.count("\n")) == (2, 1)
    assert "has no method 'n2n'; it has works, fails" in err
    code, _, err = call(monkeypatch, capsys, tmp_path / "none.yaml")
    assert (code, err.count("\n")) == (2, 1)
    assert "none.yaml: no such file; expected a study YAML" in err
