import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "examples" / "oxygen_diffusion.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("oxygen_diffusion", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_example_runs_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--model", "emt", "--out", str(tmp_path), "--steps"]
    load().main([*options, "800"])
    first = capsys.readouterr().out
    assert "finished: 800 steps" in first
    assert "Pt3/Pt2Cu" in first
    assert ("cm²/s" in first) != ("no hop" in first)
    assert (tmp_path / "diffusion.png").read_bytes().startswith(b"\x89PNG")
    load().main([*options, "850"])
    assert "finished: 850 steps" in capsys.readouterr().out
