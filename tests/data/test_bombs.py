"""Small files that unpack to a lot, or say that they hold a lot, are refused."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from crack_md.data.dataset import read_metadata
from crack_md.data.readers import read_structures
from crack_md.data.writer import RowWriter
from crack_md.errors import DataError
from crack_md.structures import read_entries

READERS: list[Callable[[Path], object]] = [
    lambda p: list(read_structures(p)),
    read_entries,
]
BOMB = zlib.compress(b'"' + b"a" * (17 << 20) + b'"')


def with_value(path: Path, key: bytes, value: bytes) -> Path:
    """An LMDB database of two rows, one of its values replaced."""
    import lmdb

    writer = RowWriter(path, job={})
    writer.append([bulk("Cu")] * 2, done=2)
    writer.finish({"format_version": 1})
    with (
        lmdb.open(str(path), subdir=False, lock=False, map_size=2**26) as file,
        file.begin(write=True) as transaction,
    ):
        transaction.put(key, value)
    return path


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("key", [b"1", b"nextid", b"deleted_ids"])
def test_values_of_lmdb_files(tmp_path: Path, key: bytes, read: Callable) -> None:
    path = with_value(tmp_path / "bomb.aselmdb", key, BOMB)
    assert len(BOMB) < 20_000
    with pytest.raises(DataError, match=r"bytes of it unpack to more than 50 times"):
        read(path)


def test_metadata_of_lmdb_files(tmp_path: Path) -> None:
    path = with_value(tmp_path / "bomb.aselmdb", b"metadata", BOMB)
    with pytest.raises(DataError, match=r"unpack to more than 50 times"):
        read_metadata(path)


@pytest.mark.parametrize("read", READERS)
def test_numbers_of_rows(tmp_path: Path, read: Callable) -> None:
    path = with_value(
        tmp_path / "many.aselmdb", b"nextid", zlib.compress(b"100000000000")
    )
    with pytest.raises(DataError, match=r"says it has 99999999999 rows and has \d"):
        read(path)


def test_rows_with_features_are_no_bombs(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True) * (10, 10, 5)
    forces = np.zeros((2000, 3))
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
    atoms.info["teacher_node_features"] = np.zeros((2000, 300))
    writer = RowWriter(tmp_path / "zeros.aselmdb", job={})
    writer.append([atoms], done=1)
    (row,) = read_structures(writer.finish({}))
    assert row.info["teacher_node_features"].shape == (2000, 300)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "counts", ["200000000", "Cu\n200000000", "Cu Au\n1 " + "9" * 30]
)
@pytest.mark.parametrize("name", ["POSCAR", "CONTCAR-2", "slab.vasp"])
def test_counts_of_poscars(
    tmp_path: Path, counts: str, name: str, read: Callable
) -> None:
    path = tmp_path / name
    path.write_text(f"Cu\n1.0\n3 0 0\n0 3 0\n0 0 3\n{counts}\nDirect\n0 0 0\n")
    with pytest.raises(DataError, match=r"says it has \d+ atoms and has \d lines"):
        read(path)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("pack", [gzip.open, bz2.open, lzma.open])
def test_packed_files(tmp_path: Path, pack: Callable, read: Callable) -> None:
    suffix = {gzip.open: "gz", bz2.open: "bz2", lzma.open: "xz"}[pack]
    good, bomb, cut = (tmp_path / f"{n}.xyz.{suffix}" for n in ("good", "bomb", "cut"))
    with pack(good, "wt") as file:
        ase.io.write(file, bulk("Cu"), format="extxyz")
    with pack(bomb, "wb") as file:
        for _ in range(65):
            file.write(bytes(1 << 20))
    cut.write_bytes(bomb.read_bytes()[:-20])
    assert len(read(good)) == 1  # type: ignore[arg-type]
    with pytest.raises(DataError, match="unpacks to more than 50 times its size"):
        read(bomb)
    with pytest.raises(DataError, match=r"(cannot be unpacked|unpacks to more)"):
        read(cut)
