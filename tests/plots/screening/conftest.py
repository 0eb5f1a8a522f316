from pathlib import Path

import pytest

from tests.workflows.ranking.screenings import run_screening


@pytest.fixture(scope="session")
def screened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results folder of a real screening; tests must not write to it."""
    return run_screening(tmp_path_factory.mktemp("screened"))
