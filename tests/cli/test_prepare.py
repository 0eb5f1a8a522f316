"""`crack-md prepare` as a user meets it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from crack_md import cli
from crack_md.data import read_dataset
from tests.oc20_files import relaxation, write_relaxations


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs a command line: exit code, stdout, stderr."""

    def execute(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["crack-md", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return execute


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return five relaxations of three frames as OC20 publishes them."""
    relaxations = {f"random{number}": relaxation(number) for number in range(5)}
    return write_relaxations(tmp_path / "0.tar", relaxations)


def test_oc20_says_what_it_took_and_where_the_splits_are(run, archive, tmp_path):
    out = tmp_path / "o.aselmdb"
    options = ["--out", out, "--split", "val=0.3,test=0.2", "--frames", "last"]
    code, told, _ = run("prepare", "oc20", archive, *options, "--adsorbate", "*O")
    assert code == 0
    assert f"5 frames in {out}:" in told
    assert f"systems and their splits: {tmp_path / 'o.splits.csv'}" in told
    assert len(read_dataset(out).structures) == 5

    # the list of one dataset makes the splits of another
    again = tmp_path / "again.aselmdb"
    listed = ["--splits", tmp_path / "o.splits.csv"]
    code, _, _ = run("prepare", "oc20", archive, "--out", again, *listed, "--quiet")
    assert code == 0
    by_group = {one.group: one.split for one in read_dataset(out).structures}
    assert {one.group: one.split for one in read_dataset(again).structures} == by_group


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--adsorbate", "*Xy"], "--adsorbate '*Xy' is no adsorbate"),
        (["--normal-only"], "give it with --mapping"),
        (["--split", "valid=1"], "cannot read 'valid=1'"),
        (["--adsorbate", "*CO"], "of another adsorbate"),
    ],
)
def test_a_wrong_option_is_one_line(run, archive, tmp_path, options, line):
    code, told, error = run(
        "prepare", "oc20", archive, "--out", tmp_path / "o.db", *options
    )
    assert code == 2
    assert told == ""
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "o.db").exists()


def test_rmd17_keeps_its_duplicates_out(run, tmp_path):
    frames = {
        "nuclear_charges": np.array([1, 1]),
        "coords": np.array([[[0.0, 0, 0], [0, 0, 0.75 + 0.01 * i]] for i in range(4)]),
        "energies": np.arange(4.0),
        "forces": np.zeros((4, 2, 3)),
        "old_energies": np.arange(4.0),
        "old_forces": np.zeros((4, 2, 3)),
        "old_indices": np.array([0, 5, 7, 7]),
    }
    np.savez(tmp_path / "rmd17_h2.npz", **frames)
    out = tmp_path / "h2.db"
    options = ["--out", out, "--labels", "old", "--val", 0]
    code, told, _ = run("prepare", "rmd17", tmp_path / "rmd17_h2.npz", *options)
    assert code == 0
    assert f"3 frames in {out}: 3 train" in told
    assert "1 left out: there already" in told


def test_every_option_explains_itself():
    group = get_command(cli.app).commands["prepare"]
    assert sorted(group.commands) == ["oc20", "rmd17"]
    for command in group.commands.values():
        named = [p for p in command.params if p.name != "help"]
        assert [p.name for p in named if not getattr(p, "help", "")] == []
