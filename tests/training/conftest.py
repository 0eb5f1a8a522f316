"""A small labelled dataset on disk."""

from pathlib import Path

import pytest

from tests.training.factories import labelled, write_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small.aselmdb"
    return write_dataset(path, [labelled(number) for number in range(16)])
