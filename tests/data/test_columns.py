"""Columns: what is appended is what is read, also after a kill."""

import json
from pathlib import Path

import numpy as np
import pytest

from crack_md.data.columns import RECORD, ColumnWriter, open_columns
from crack_md.errors import DataError

JOB = {"of": ["a", 1]}


def rows(first: int, n: int) -> dict[str, np.ndarray]:
    numbers = np.arange(first, first + n)
    return {"one": numbers.astype(np.int16), "three": numbers[:, None] * np.ones(3)}


def test_chunks_lie_end_to_end(tmp_path: Path) -> None:
    writer = ColumnWriter(tmp_path, JOB)
    writer.append(rows(0, 2), n_items=2)
    writer.append(rows(2, 3), n_items=3)
    assert open_columns(tmp_path, JOB) is None  # not before it is finished
    finished = writer.finish()
    found = open_columns(tmp_path, JOB)
    assert found is not None
    for columns in (finished, found):
        assert columns["one"].dtype == np.int16
        assert columns["one"].tolist() == [0, 1, 2, 3, 4]
        assert columns["three"].tolist() == [[i, i, i] for i in range(5)]


def test_a_killed_run_goes_on_behind_the_last_whole_chunk(tmp_path: Path) -> None:
    ColumnWriter(tmp_path, JOB).append(rows(0, 2), n_items=2)
    with (tmp_path / "three.bin").open("ab") as file:
        file.write(b"half a chunk")
    writer = ColumnWriter(tmp_path, JOB)
    assert writer.done == 2
    writer.append(rows(2, 1), n_items=1)
    assert writer.finish()["three"][:, 0].tolist() == [0, 1, 2]


def test_other_sources_begin_anew(tmp_path: Path) -> None:
    writer = ColumnWriter(tmp_path, JOB)
    writer.append(rows(0, 2), n_items=2)
    writer.finish()
    other = ColumnWriter(tmp_path, {"of": ["a", 2]})
    assert other.done == 0
    other.append({"one": np.array([7])}, n_items=1)
    assert {k: v.tolist() for k, v in other.finish().items()} == {"one": [7]}
    assert open_columns(tmp_path, JOB) is None


def test_columns_without_rows_are_empty(tmp_path: Path) -> None:
    writer = ColumnWriter(tmp_path, JOB)
    writer.append({"none": np.zeros((0, 3), np.float32)}, n_items=1)
    assert writer.finish()["none"].shape == (0, 3)


def test_rows_of_another_kind_are_refused_and_change_nothing(tmp_path: Path) -> None:
    writer = ColumnWriter(tmp_path, JOB)
    writer.append(rows(0, 2), n_items=2)
    with pytest.raises(DataError, match=r"some structures have three and others"):
        writer.append({"one": np.array([1], np.int16)}, n_items=1)
    with pytest.raises(DataError, match=r"one is <f8 \[\] for some structures and <i2"):
        writer.append(rows(2, 1) | {"one": np.array([1.0])}, n_items=1)
    again = ColumnWriter(tmp_path, JOB)
    assert again.done == 2
    assert again.finish()["one"].tolist() == [0, 1]


def test_a_damaged_folder_is_one_line(tmp_path: Path) -> None:
    writer = ColumnWriter(tmp_path, JOB)
    writer.append(rows(0, 4), n_items=4)
    writer.finish()
    (tmp_path / "three.bin").write_bytes(b"short")
    with pytest.raises(DataError, match=r"three\.bin is damaged .* remove the folder"):
        open_columns(tmp_path, JOB)
    (tmp_path / RECORD).write_text("{broken")
    assert open_columns(tmp_path, JOB) is None
    (tmp_path / RECORD).write_text(json.dumps([1]))
    assert ColumnWriter(tmp_path, JOB).done == 0
