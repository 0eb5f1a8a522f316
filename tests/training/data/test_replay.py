"""Further sets beside the first: what counts how often, and what does not mix."""

from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from crack_md.data.labelling import label_structures
from crack_md.errors import DataError
from crack_md.training.config import TrainConfig
from crack_md.training.data.source import read_training_data
from tests.training.factories import labelled, recipe, write_dataset


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("more") / "more.aselmdb"
    return write_dataset(path, [labelled(number) for number in range(20, 28)])


def config_of(data, folder, *replay, **sections):
    tree = recipe(data, folder)
    tree["data"]["replay"] = [{"path": str(p), "repeats": n} for p, n in replay]
    return TrainConfig.model_validate(tree | sections)


def groups(frames):
    return [frame.group for frame in frames]


def test_new_frames_stand_behind_the_old_as_often_as_they_count(
    dataset, more, tmp_path
):
    alone = read_training_data(config_of(dataset, tmp_path))

    data = read_training_data(config_of(dataset, tmp_path, (more, 3)))

    # of eight frames four train: cell-20, -21, -24, -25
    new = ["cell-20", "cell-21", "cell-24", "cell-25"]
    assert groups(data.train) == [*groups(alone.train), *new * 3]
    assert groups(data.validation) == groups(alone.validation)


def test_every_set_has_its_own_repeats(dataset, more, tmp_path):
    other = write_dataset(tmp_path / "other.aselmdb", [labelled(40), labelled(41)])

    data = read_training_data(config_of(dataset, tmp_path, (more, 1), (other, 2)))

    names = groups(data.train)
    assert names.count("cell-20") == 1
    assert names.count("cell-40") == 2


def test_elements_of_all_sets_are_known(dataset, tmp_path):
    gold = labelled(40)
    gold.atoms.numbers[:] = 47
    other = write_dataset(tmp_path / "other.aselmdb", [gold])

    data = read_training_data(config_of(dataset, tmp_path, (other, 1)))

    assert data.dataset.elements == (29, 47, 79)


def test_features_of_another_width_are_refused(dataset, tmp_path):
    cells = [labelled(number).atoms for number in (0, 1)]
    write(tmp_path / "cells.db", cells)
    bare = tmp_path / "bare.aselmdb"
    label_structures([tmp_path / "cells.db"], bare, teacher="emt")
    task = {"kind": "task", "energy_weight": 4.0, "force_weight": 100.0}

    with pytest.raises(DataError, match=r"has 0 teacher features per atom, .* has 5"):
        read_training_data(config_of(dataset, tmp_path, (bare, 1)))
    data = read_training_data(config_of(dataset, tmp_path, (bare, 1), losses=[task]))

    assert np.isfinite([frame.energy for frame in data.train]).all()


def test_a_set_without_training_frames_is_refused(dataset, tmp_path):
    held = write_dataset(tmp_path / "held.aselmdb", [labelled(2), labelled(3)])

    with pytest.raises(
        DataError, match=r"held\.aselmdb has no frames with split 'train'"
    ):
        read_training_data(config_of(dataset, tmp_path, (held, 1)))
