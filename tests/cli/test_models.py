"""``crack-md convert`` and ``crack-md info`` as a user runs them."""

import json
import os
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from crack_md.cli.models import register
from crack_md.errors import CheckpointError, ConfigError
from crack_md.models.checkpoint import load_model
from crack_md.models.pickles import file_sha256

TINY = Path(__file__).parents[1] / "data" / "eqv2_fairchem_v1_tiny.pt"
GOLDEN = Path(os.environ.get("CRACK_MD_REFERENCES", "../shared")) / "golden"


def run(*arguments: object) -> Result:
    app = typer.Typer()
    register(app)
    words = [str(argument) for argument in arguments]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "100"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_converted_model_is_the_public_one(tmp_path: Path) -> None:
    target = tmp_path / "student.pt"
    result = run("convert", TINY, target)
    assert result.exit_code == 0
    assert "223,530" in result.output
    torch.load(target, weights_only=True)
    model, public = load_model(target), load_model(TINY)
    weights = model.network.state_dict()
    for name, tensor in public.network.state_dict().items():
        assert torch.equal(weights[name], tensor)
    assert model.metadata.provenance["source_sha256"] == file_sha256(TINY)


def test_options_of_convert(tmp_path: Path) -> None:
    target = tmp_path / "student.pt"
    run("convert", TINY, target, "--energy-reference", "total", "--elements", "Pt,O")
    metadata = load_model(target).metadata
    assert metadata.energy_reference == "total"
    assert metadata.elements == (8, 78)
    with pytest.raises(ConfigError, match="--elements has Xy"):
        run("convert", TINY, target, "--elements", "Pt Xy")
    assert run("convert", TINY, target, "--part", "both").exit_code == 2


def test_parts_of_the_crack_release(tmp_path: Path) -> None:
    source = GOLDEN / "crack_official_tiny.pt"
    if not source.exists():
        pytest.skip(f"no golden file '{source}'; set CRACK_MD_REFERENCES")
    for part, layers in (("student", 2), ("teacher", 3)):
        run("convert", source, tmp_path / f"{part}.pt", "--part", part)
        config = load_model(tmp_path / f"{part}.pt").network.config
        assert (config.num_layers, config.delta) == (layers, part == "student")


def test_what_convert_refuses(tmp_path: Path) -> None:
    target = tmp_path / "student.pt"
    run("convert", TINY, target)
    with pytest.raises(CheckpointError, match="crack-md model already"):
        run("convert", target, tmp_path / "again.pt")
    source = tmp_path / "public.pt"
    source.write_bytes(TINY.read_bytes())
    with pytest.raises(ConfigError, match="another name"):
        run("convert", source, source)
    with pytest.raises(CheckpointError, match="found nothing"):
        run("convert", tmp_path / "missing.pt", target)


def test_info_of_a_public_file() -> None:
    output = run("info", TINY).output
    assert "public checkpoint: OCP/fairchem v1 EquiformerV2" in output
    assert "3 layers, lmax 4, mmax 2, 16 channels" in output
    assert "223,530" in output
    assert "adsorption energy" in output
    assert "the 20 nearest inside 12 Å" in output
    assert file_sha256(TINY) in output


def test_doubts_are_one_line_on_stderr(tmp_path: Path) -> None:
    content = torch.load(TINY, weights_only=True)
    content["normalizers"], content["config"]["dataset"] = {}, {}
    torch.save(content, tmp_path / "odd.pt")
    result = run("info", tmp_path / "odd.pt", "--json")
    assert json.loads(result.stdout)["energy_scale"]["std_eV"] == 1.0
    assert result.stderr.startswith("warning: ")
    assert result.stderr.count("\n") == 1


def test_info_as_json(tmp_path: Path) -> None:
    target = tmp_path / "[b]student.pt"  # no markup in file names
    run("convert", TINY, target)
    summary = json.loads(run("info", target, "--json").output)
    assert summary["kind"] == "crack-md model, format 1"
    assert summary["sha256"] == file_sha256(target)
    assert summary["parameters"] == 223_530
    assert summary["forces"] == "direct"
    assert summary["energy_reference"] == "adsorption"
    assert summary["cutoff_A"] == 12.0
    assert summary["neighbors"] == 20
    assert "Pt" in summary["elements"]
    assert summary["architecture"]["lmax"] == 4
    assert summary["provenance"]["source_file"] == TINY.name
    assert "[b]student.pt" in run("info", target).output.replace("\n", "")
