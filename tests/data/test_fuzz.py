"""Files that are wrong in any place: readers raise `CrackError`, and nothing else.

The examples are the same in every run (`derandomize`): this is the short form.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crack_md.data.dataset import read_dataset
from crack_md.data.readers import read_structures
from crack_md.data.writer import RowWriter
from crack_md.errors import ConfigError, CrackError, DataError
from crack_md.input_files import check_lmdb
from crack_md.models.checkpoint import load_model, save_model
from crack_md.structures import read_entries
from crack_md.training.config import check_config, load_config
from tests.factories import tiny_model
from tests.training.factories import recipe

SHORT = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
KINDS = (".extxyz", ".db", ".aselmdb", ".traj", ".cif", ".vasp", ".json")
Change = tuple[float, bytes, bool]
"""Where in a file, what is written there, and whether the file ends with it."""
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9), st.booleans()),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    atoms = bulk("Cu", cubic=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.ones((4, 3)))
    atoms.info["group"] = "copper"
    for kind in KINDS:
        path = folder / f"file{kind}"
        if kind in (".db", ".aselmdb"):
            writer = RowWriter(path, job={})
            writer.append([atoms] * 3, done=3)
            writer.finish({})
        else:
            ase.io.write(path, atoms)
    save_model(tiny_model(dtype=torch.float32, num_layers=1), folder / "file.pt")
    return {path.suffix: path.read_bytes() for path in folder.glob("file.*")}


def spoilt(data: bytes, changes: list[Change]) -> bytes:
    found = bytearray(data)
    for place, text, ends in changes:
        start = int(place * len(found))
        found[start : start + len(text)] = text
        if ends:
            del found[start + len(text) :]
    return bytes(found)


@pytest.mark.parametrize("kind", KINDS)
@SHORT
@given(changes=CHANGES)
def test_structure_files(
    kind: str, changes: list[Change], whole: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"spoilt{kind}"
    path.write_bytes(spoilt(whole[kind], changes))
    for read in (lambda p: list(read_structures(p)), read_dataset, read_entries):
        with contextlib.suppress(CrackError):
            read(path)  # type: ignore[operator]


@SHORT
@given(changes=CHANGES)
def test_model_files(
    changes: list[Change], whole: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "spoilt.pt"
    path.write_bytes(spoilt(whole[".pt"], changes))
    with contextlib.suppress(CrackError):
        load_model(path)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@SHORT
@given(place=st.integers(0, 30), value=ANYTHING)
def test_training_recipes(place: int, value: Any) -> None:
    tree = recipe(Path("set.db"), Path("run"))
    places = [
        (section, key)
        for section, content in tree.items()
        for key in (content if isinstance(content, dict) else range(len(content)))
    ]
    section, key = places[place % len(places)]
    tree[section][key] = value
    with contextlib.suppress(ConfigError):
        check_config(tree, source="test")


def test_recipes_nested_3000_deep_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("student: " + "[" * 3000 + "]" * 3000)
    with pytest.raises(ConfigError, match="nested too deeply"):
        load_config(path)


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "x", "[1]"])
def test_weights_of_losses_are_numbers(tmp_path: Path, value: str) -> None:
    tree = recipe(Path("set.db"), tmp_path)
    tree["losses"][0]["weight"] = (
        float(value) if value in ("nan", "inf", "-1") else value
    )
    with pytest.raises(ConfigError, match=r"losses\.0"):
        check_config(tree, source="test")


@pytest.mark.parametrize("key", ["energy_weight", "force_weight"])
def test_no_loss_leads_away_from_its_labels(tmp_path: Path, key: str) -> None:
    tree = recipe(Path("set.db"), tmp_path)
    tree["losses"][2][key] = -1.0
    with pytest.raises(ConfigError, match=rf"losses\.2.*{key}.*greater than or equal"):
        check_config(tree, source="test")
    tree["losses"][2][key] = 0.0
    check_config(tree, source="test")


def test_some_loss_has_a_weight(tmp_path: Path) -> None:
    tree = recipe(Path("set.db"), tmp_path)
    for loss in tree["losses"]:
        loss |= {key: 0.0 for key in loss if key.endswith("weight")}
    with pytest.raises(ConfigError, match="every loss has weight 0: nothing would be"):
        check_config(tree, source="test")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX")
def test_a_pipe_is_no_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.xyz")
    with pytest.raises(DataError, match="is a pipe or a device"):
        list(read_structures(tmp_path / "pipe.xyz"))


@pytest.mark.parametrize("count", ["5", "1000000000000", "9" * 400])
def test_counts_beyond_the_file_are_no_search(tmp_path: Path, count: str) -> None:
    path = tmp_path / "few.xyz"
    path.write_text(f"{count}\ncomment\nCu 0 0 0\nCu 0 0 3\n")
    with pytest.raises(DataError, match=r"few\.xyz: frame 1 says it has \d+ atoms"):
        list(read_structures(path))


LMDB_DAMAGE: dict[str, Callable[[bytearray], object]] = {
    "cut": lambda data: data.__delitem__(slice(len(data) - 4096, None)),
    "half": lambda data: data.__delitem__(slice(len(data) // 2, None)),
    "no header": lambda data: data.__setitem__(slice(0, 64), bytes(64)),
    # every leaf: its first entry begins in the last bytes of the page
    "entries": lambda data: [
        data.__setitem__(slice(page + 16, page + 18), b"\xff\xff")
        for page in range(8192, len(data), 4096)
    ],
}


@pytest.mark.parametrize("damage", LMDB_DAMAGE)
def test_damaged_lmdb_files_are_never_mapped(
    tmp_path: Path, whole: dict[str, bytes], damage: str
) -> None:
    path = tmp_path / "damaged.aselmdb"
    path.write_bytes(whole[".aselmdb"])
    check_lmdb(path)
    data = bytearray(whole[".aselmdb"])
    LMDB_DAMAGE[damage](data)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"cannot read .*damaged.*whole LMDB"):
        list(read_structures(path))


def test_inputs_are_left_as_they_are(tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    for kind in KINDS:
        (folder / f"file{kind}").write_bytes(whole[kind])
        (folder / f"file{kind}").chmod(0o444)
    folder.chmod(0o555)
    try:
        assert len(list(read_structures(folder))) == 11
        names = sorted(path.name for path in folder.iterdir())
    finally:
        folder.chmod(0o755)
    assert names == sorted(f"file{kind}" for kind in KINDS)
    assert all((folder / f"file{k}").read_bytes() == whole[k] for k in KINDS)


def test_an_interrupted_chunk_leaves_no_row(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "out.aselmdb", job={})
    writer.append([bulk("Cu")], done=1)
    frames = iter([bulk("Cu"), None])
    with pytest.raises(AttributeError):
        writer.append(frames, done=3)  # type: ignore[arg-type]
    again = RowWriter(tmp_path / "out.aselmdb", job={})
    assert again.done == again.n_rows == 1
