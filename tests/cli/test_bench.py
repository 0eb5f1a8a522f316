"""``crack-md bench`` as a user runs it."""

import json
import re
from pathlib import Path

import ase.io
import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from crack_md.calculators import packaged
from crack_md.cli.bench import register
from crack_md.errors import ConfigError, CrackError, StructureError
from crack_md.models.checkpoint import save_model
from crack_md.models.force_field import ModelMetadata
from tests.calculators.test_packages import stand_in
from tests.factories import oxygen_slab, tiny_model, water


def run(*arguments: object, command: str = "bench") -> Result:
    app = typer.Typer()
    register(app)
    words = [command, *(str(argument) for argument in arguments)]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "100"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def student(tmp_path: Path) -> Path:
    save_model(tiny_model(dtype=torch.float32), tmp_path / "student.pt")
    return tmp_path / "student.pt"


def test_own_structures_with_two_repeats(student: Path, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "mine.traj", [oxygen_slab(), water()])
    target = tmp_path / "speed.json"
    options = ["--repeats", 2, "--batch", 3, "--device", "cpu", "--json", target]
    result = run(student, tmp_path / "mine.traj", *options)
    assert result.exit_code == 0
    found = json.loads(target.read_text())
    assert [(row["name"], row["n_atoms"]) for row in found["rows"]] == [
        ("OPt12", 13),
        ("H2O", 3),
        ("3 × H2O", 9),
    ]
    for row in found["rows"]:
        assert row["latency"]["n_calls"] == 2
        assert row["not_run"] is None
    assert found["rows"][2]["ns_per_day"] is None
    cold = found["cold_start_s"]
    parts = cold["import_s"] + cold["load_s"] + cold["first_s"]
    assert cold["total_s"] == pytest.approx(parts)
    assert found["options"] == {"device": "cpu", "dtype": "float32", "compile": "auto"}
    for word in ("3 × H2O", "cold start", "torch", "steps/s"):
        assert word in result.output


def test_default_slabs_in_another_precision(student: Path) -> None:
    options = ["--atoms", "6", "--batch", 0, "--repeats", 1, "--dtype", "float64"]
    result = run(student, *options)
    assert "O/Pt(111)      6" in result.output
    assert "×" not in result.output


def test_what_cannot_be_measured_is_said_in_one_line(tmp_path: Path) -> None:
    without = tiny_model(metadata=ModelMetadata("total", (1, 8)))
    save_model(without, tmp_path / "water.pt")
    with pytest.raises(ConfigError, match=r"does not know Pt, which.*; name a file"):
        run(tmp_path / "water.pt")
    with pytest.raises(ConfigError, match=r"--atoms 'many'"):
        run(tmp_path / "water.pt", "--atoms", "many")
    ase.io.write(tmp_path / "slab.traj", oxygen_slab())
    with pytest.raises(StructureError, match=r"does not know Pt"):
        run(tmp_path / "water.pt", tmp_path / "slab.traj")


def test_compile_says_where_the_code_is_and_what_it_brings(
    student: Path, packages_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "package_of", stand_in)
    result = run(student, command="compile")
    first, *rest = result.stdout.splitlines()
    assert f"and checked: {packages_folder}/" in first
    line = r"(30|12) atoms: [\d.]+ ms instead of [\d.]+ ms"
    assert len(rest) == 2
    assert all(re.fullmatch(line, one) for one in rest), rest


def test_what_cannot_be_compiled_is_one_line(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no C++ compiler found\nand a page of advice")

    monkeypatch.setattr(packaged, "_compile", fail)
    with pytest.raises(CrackError, match=r"cannot be compiled \(RuntimeError: no C"):
        run(student, command="compile")
