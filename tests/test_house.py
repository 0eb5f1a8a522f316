"""What keeps the package one house: folders, names, and the length of a story."""

import ast
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from ase.build import fcc111
from ase.calculators.emt import EMT

import crack_md
from crack_md.api import screening

PACKAGE = Path(crack_md.__file__).parent
A_FUNCTION = 1
"""Flag of code that is no body of a class or module."""


def test_no_folder_has_more_than_16_modules() -> None:
    sizes = Counter(file.parent for file in PACKAGE.rglob("*.py"))
    assert sizes
    crowded = {str(folder): size for folder, size in sizes.items() if size > 16}
    assert not crowded


def test_no_two_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert len(names) > 300
    assert not [name for name, count in names.items() if count > 1]


def test_screening_is_a_story_of_25_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From slabs in memory, by EMT, to the tables; figures and page are left out."""
    for drawn in ("_write_figures", "write_report"):
        monkeypatch.setattr(screening, drawn, lambda *_: None)
    slabs = [
        fcc111(metal, (2, 2, 3), vacuum=8, periodic=True) for metal in ("Pt", "Cu")
    ]
    gas_energies = {"H2O": -12.81, "H2": -6.98}

    def run(name: str) -> None:
        screening.screen(
            slabs, EMT(), out=tmp_path / name, gas_energies=gas_energies, fmax=0.3
        )

    files = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        file = Path(code.co_filename)
        if event == "call" and code.co_flags & A_FUNCTION and PACKAGE in file.parents:
            files.add(str(file.relative_to(PACKAGE)))

    run("first")  # imports what it needs
    sys.setprofile(note)
    try:
        run("second")
    finally:
        sys.setprofile(None)
    assert (tmp_path / "second" / "results.csv").exists()
    assert {"api/screening.py", "workflows/orr/diagram.py"} <= files
    assert len(files) <= 25, sorted(files)
