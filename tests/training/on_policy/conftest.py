"""A small set labelled with EMT."""

from pathlib import Path

import pytest

from tests.training.on_policy.loops import write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("loop"))
