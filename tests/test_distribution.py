"""What is shipped beside the code: citation, scripts of clusters, release checks."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from crack_md import __version__
from crack_md.bench.doctor import NOT_FOR_USERS
from tests import release

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples" / "slurm").glob("*.sh"))


def test_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_of_slurm_are_bash(script: Path) -> None:
    done = subprocess.run(
        ["bash", "-n", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert script.read_text().startswith("#!/bin/bash\n# ")


def test_shapes_are_of_arrays_not_of_aliases() -> None:
    """NumPy 2.5's ``NDArray`` is a type alias, which jaxtyping takes for no class."""
    for path in (ROOT / "crack_md").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        aliases = re.findall(r"^(\w+) = NDArray\b", source, re.MULTILINE)
        names = "|".join(["NDArray", *aliases])
        wrong = re.findall(rf"\b(?:Float|Int|Bool|Shaped)\[(?:{names})\b", source)
        assert wrong == [], path.name


def test_image_copies_what_is_there() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    named = [
        word
        for line in re.findall(r"^COPY (.*) \S+$", text, re.M)
        for word in line.split()
    ]
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_oldest_allowed_dependencies_are_pins() -> None:
    pins = release.oldest_allowed()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(pins) == len(project["dependencies"])
    assert "torch==2.8" in pins


def test_extras_for_the_package_itself_are_not_offered() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) >= NOT_FOR_USERS


def test_a_check_that_fails_ends_with_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [release.Check("a", True, "1 MB"), release.Check("b", False, "20 MB")]
    monkeypatch.setattr(release, "_checks", lambda out, found: iter(checks))
    assert release.main(["--out", str(tmp_path / "dist")]) == 1
    assert capsys.readouterr().out.endswith("FAILED  b: 20 MB\n1 of 2 checks passed\n")
