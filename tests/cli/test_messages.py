"""What the package logs, as commands show it."""

import json
import logging
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import ase.io
import pytest
import torch
from typer.testing import CliRunner

from crack_md.calculators.engine import CompiledEngine
from crack_md.cli import app
from crack_md.cli.common import show_messages
from crack_md.models.checkpoint import save_model
from crack_md.models.force_field import ForceField
from tests.factories import oxygen_slab, tiny_model


def traced(model: ForceField, _: object) -> CompiledEngine:
    return CompiledEngine(model, backend="eager")


def test_what_compiling_took_is_shown_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("crack_md.calculators.crack.build_engine", traced)
    save_model(tiny_model(dtype=torch.float32), tmp_path / "student.pt")
    ase.io.write(tmp_path / "slab.traj", oxygen_slab())
    files = [tmp_path / "slab.traj", "--out", tmp_path / "out"]
    options = ["--model", tmp_path / "student.pt", "--steps", 2, "--json"]
    options += ["--fmax", "0.000001"]
    result = CliRunner().invoke(app, ["relax", *map(str, files + options)])
    assert json.loads(result.stdout)["structures"][0]["steps"] == 2
    line = r"compiled for 16 atoms and \d+ neighbors, \d+ edges in all, in \d+\.\d s\n"
    assert re.fullmatch(line, result.stderr), result.stderr


def test_quiet_commands_show_warnings_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def report(*_: object, **__: object) -> SimpleNamespace:
        logging.getLogger("crack_md.anywhere").info("for those who watch")
        logging.getLogger("crack_md.anywhere").warning("for all")
        return SimpleNamespace(stopped_by=None)

    monkeypatch.setattr("crack_md.training.config.load_config", report)
    monkeypatch.setattr("crack_md.training.loop.train.train", report)
    for options, expected in (
        ([], 2 * "for those who watch\nfor all\n"),
        (["--quiet"], 2 * "for all\n"),
        ([], 2 * "for those who watch\nfor all\n"),
    ):
        result = CliRunner().invoke(app, ["train", str(tmp_path), *options])
        assert result.exit_code == 0, result.exception
        assert (result.stderr, result.stdout) == (expected, "")


def test_warnings_are_one_line(capsys: pytest.CaptureFixture[str]):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        show_messages()
        warnings.warn("two\n lines", stacklevel=1)
    assert capsys.readouterr().err == "warning: two lines\n"
