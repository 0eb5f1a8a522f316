"""Sets without splits: a part for validation, or an error; never none in silence."""

import dataclasses
from pathlib import Path

import pytest

from crack_md.data.dataset import LabelledStructure
from crack_md.errors import DataError
from crack_md.training.config import check_config
from crack_md.training.data.source import TrainingData, read_training_data
from tests.training.factories import labelled, recipe, write_dataset


def data_of(structures: list[LabelledStructure], folder: Path) -> TrainingData:
    path = write_dataset(folder / "set.db", structures)
    tree = recipe(path, folder / "run")
    return read_training_data(check_config(tree, source="test"))


def unsplit(n: int, group: str | None = None) -> list[LabelledStructure]:
    frames = [dataclasses.replace(labelled(number), split=None) for number in range(n)]
    if group is None:
        return frames
    return [dataclasses.replace(one, group=group) for one in frames]


@pytest.mark.parametrize(("n_frames", "n_validation"), [(2, 1), (20, 1), (21, 2)])
def test_one_group_in_twenty_is_for_validation(
    tmp_path: Path, n_frames: int, n_validation: int
) -> None:
    with pytest.warns(UserWarning, match=f"{n_validation} of {n_frames} structures"):
        data = data_of(unsplit(n_frames), tmp_path)
    assert (len(data.train), len(data.validation)) == (
        n_frames - n_validation,
        n_validation,
    )
    groups = [{one.group for one in part} for part in (data.train, data.validation)]
    assert not groups[0] & groups[1]


@pytest.mark.parametrize(("n_frames", "n_validation"), [(4, 1), (41, 3)])
def test_the_end_of_one_trajectory_is_for_validation(
    tmp_path: Path, n_frames: int, n_validation: int
) -> None:
    frames = unsplit(n_frames, "water")
    with pytest.warns(UserWarning, match=f"the last {n_validation} of {n_frames}"):
        data = data_of(frames, tmp_path)
    kept = [one.energy for one in (*data.train, *data.validation)]
    assert kept == pytest.approx([one.energy for one in frames])
    assert len(data.validation) == n_validation


def test_one_structure_leaves_nothing_to_validate_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one structure and no splits"):
        data_of(unsplit(1, "water"), tmp_path)


def test_structures_that_lack_a_split_are_counted(tmp_path: Path) -> None:
    frames = [*unsplit(2), *(labelled(number) for number in range(2, 8))]
    with pytest.warns(UserWarning, match="2 structures have no split and are left out"):
        data = data_of(frames, tmp_path)
    assert (len(data.train), len(data.validation)) == (2, 2)  # two more for testing
