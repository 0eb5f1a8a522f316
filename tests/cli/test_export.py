"""``crack-md export`` without the packages it needs, and with wrong targets."""

import sys
from pathlib import Path
from typing import Any

import pytest

import crack_md.calculators
from crack_md.cli.models import export
from crack_md.errors import ConfigError, MissingDependencyError
from crack_md.models.checkpoint import save_model
from tests.factories import tiny_model


def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "crack_md.calculators.metatomic", raising=False)
    monkeypatch.delattr(crack_md.calculators, "metatomic", raising=False)
    monkeypatch.setitem(sys.modules, "metatomic.torch", None)
    monkeypatch.setitem(sys.modules, "metatensor.torch", None)
    with pytest.raises(MissingDependencyError, match=r"crack-md\[metatomic\]"):
        export("default", to="metatomic", out=tmp_path / "out.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": Path("nowhere") / "out.pt"}, "no folder 'nowhere'"),
        ({"out": Path("student.pt")}, "is the model to export"),
    ],
)
def test_wrong_targets_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(), "student.pt")
    before = Path("student.pt").read_bytes()
    with pytest.raises(ConfigError, match=message):
        export("student.pt", to="metatomic", **changes)
    assert Path("student.pt").read_bytes() == before
