"""Fixtures of the whole suite: threads, random state, and the reference data."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Keep parallel test workers from fighting for cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _random_state() -> Iterator[None]:
    """Leave no trace of a test in the random numbers of the next."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def _fast_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round to bfloat16 where tests ask for it, on processors without it too."""
    monkeypatch.setattr("crack_md.models.precision.slowdown", lambda _device: 0.5)


@pytest.fixture(autouse=True)
def packages_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where compiled code goes, and look for none that the user has."""
    folder = tmp_path / "compiled"
    monkeypatch.setattr("crack_md.calculators.packages.packages_folder", lambda: folder)
    return folder


@pytest.fixture(scope="session")
def references() -> Path:
    """Return the folder of golden files and real data, or skip."""
    named = os.environ.get("CRACK_MD_REFERENCES")
    folder = Path(named) if named else ROOT.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip(
            f"no reference data in {folder}; set CRACK_MD_REFERENCES to their folder"
        )
    return folder
