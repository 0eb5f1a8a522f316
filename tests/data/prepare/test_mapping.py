"""OC20's mapping is read without running anything that is pickled in it."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from crack_md.data.prepare.oc20_files import SystemInfo, read_mapping
from crack_md.errors import DataError
from tests.oc20_files import record, write_mapping


def test_the_mapping_as_published(tmp_path: Path) -> None:
    path = write_mapping(
        tmp_path / "m.pkl",
        {"random1": record(), "random2": record("*OH", anomaly=3)},
    )
    systems, counts = read_mapping(path)
    assert systems == {
        "random1": SystemInfo("*O", "Pt4 (1, 1, -1)", 0),
        "random2": SystemInfo("*OH", "Pt4 (1, 1, -1)", 3),
    }
    assert counts == {"*O": 1, "*OH": 1}
    assert read_mapping(path, adsorbate="*OH")[0].keys() == {"random2"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps({"random1": record()}, protocol=protocol))
    assert read_mapping(path)[1] == {"*O": 1}


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("key", ["shift", "adsorption_site"])
def test_foreign_code_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_mapping(tmp_path / "m.pkl", {"random1": record() | {key: Trap()}})
    with pytest.raises(DataError, match=r"m\.pkl: holds an object of 'posix\.mkdir'"):
        read_mapping(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot read"),
        (b"noise", "cannot read"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({}), "holds a dict"),
        (pickle.dumps({"random1": {}}), r"record of 'random1' \(KeyError"),
        (pickle.dumps({"random1": record() | {"anomaly": np.int64(1)}}), "TypeError"),
        (pickle.dumps({"a": record()})[:-9], "cannot read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_mapping(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_mapping_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no mapping file at .*gone\.pkl"):
        read_mapping(tmp_path / "gone.pkl")
