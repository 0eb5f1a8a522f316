"""Columns of numbers in flat files, which processes map into memory and share.

    FOLDER/NAME.bin       the rows of one column, end to end
    FOLDER/columns.json   what they are for, type, shape and number of their rows

Rows come in chunks, and the record is written behind each of them: a killed run goes on
behind the last whole chunk. Only a finished folder is opened.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crack_md.errors import DataError
from crack_md.files import is_full_disk, write_text

RECORD = "columns.json"
Columns = dict[str, NDArray[Any]]


class ColumnWriter:
    """Append rows to the columns of a folder, or go on where a run was stopped.

    One process at a time; the caller sees to that (`crack_md.files.claim_folder`).

    Args:
        folder: Made if it is missing.
        job: What determines the rows, ready for JSON. Columns of another job, whose
            sources have changed, are begun anew.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any]) -> None:
        self.folder = folder
        record = _read_record(folder)
        same = record.get("job") == json.loads(json.dumps(job))
        new: dict[str, Any] = {"job": job, "done": 0, "columns": {}}
        self._record = record if same else new
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not same:
                (folder / RECORD).unlink(missing_ok=True)
            for file in folder.glob("*.bin"):
                os.truncate(file, self._bytes_of(file.stem))
        except OSError as error:
            raise DataError(
                f"cannot write into {folder}: {error.strerror or error}; name another "
                "folder with data.store"
            ) from error

    @property
    def done(self) -> int:
        """Return how many items the rows stand for, those of earlier starts too."""
        return int(self._record["done"])

    def append(self, rows: Mapping[str, NDArray[Any]], *, n_items: int) -> None:
        """Write the rows of so many items, all or nothing.

        Raises:
            DataError: Rows of another type or shape than the first, or a full disk.
        """
        known = self._record["columns"]
        if known and known.keys() != rows.keys():
            odd = ", ".join(sorted(known.keys() ^ rows.keys()))
            raise DataError(
                f"some structures have {odd} and others have not; label all of them"
            )
        columns = {}
        try:
            for name, values in rows.items():
                columns[name] = self._append(name, np.ascontiguousarray(values))
            record = self._record | {"columns": columns, "done": self.done + n_items}
            write_text(self.folder / RECORD, json.dumps(record))
        except OSError as error:
            if not is_full_disk(error):
                raise
            raise DataError(
                f"{self.folder}: the disk is full; free some space and repeat the "
                "command, which goes on where it stopped"
            ) from error
        self._record = record

    def finish(self) -> Columns:
        """Say that nothing is missing, and return what `open_columns` returns."""
        self._record = self._record | {"finished": True}
        write_text(self.folder / RECORD, json.dumps(self._record))
        return _mapped(self.folder, self._record)

    def _append(self, name: str, values: NDArray[Any]) -> dict[str, Any]:
        entry = {"dtype": values.dtype.str, "shape": values.shape[1:], "rows": 0}
        entry = self._record["columns"].get(name, entry)
        kind = [values.dtype.str, list(values.shape[1:])]
        if kind != [entry["dtype"], list(entry["shape"])]:
            raise DataError(
                f"{name} is {kind[0]} {kind[1]} for some structures and "
                f"{entry['dtype']} {entry['shape']} for others; label all with the "
                "same teacher and options"
            )
        with (self.folder / f"{name}.bin").open("ab") as file:
            file.write(values.data)
            file.flush()
            os.fsync(file.fileno())
        return {**entry, "rows": entry["rows"] + len(values)}

    def _bytes_of(self, name: str) -> int:
        entry = self._record["columns"].get(name)
        if entry is None:
            return 0
        size = np.dtype(entry["dtype"]).itemsize * int(np.prod(entry["shape"]))
        return int(entry["rows"]) * size


def open_columns(folder: Path, job: Mapping[str, Any]) -> Columns | None:
    """Return the finished columns of a job, mapped into memory; None if there are none.

    Pages are read when they are looked at, and shared by all processes.
    """
    record = _read_record(folder)
    if not record.get("finished") or record["job"] != json.loads(json.dumps(job)):
        return None
    return _mapped(folder, record)


def _mapped(folder: Path, record: Mapping[str, Any]) -> Columns:
    columns = record["columns"]
    return {name: _map(folder, name, entry) for name, entry in columns.items()}


def _map(folder: Path, name: str, entry: Mapping[str, Any]) -> NDArray[Any]:
    shape = (entry["rows"], *entry["shape"])
    if 0 in shape:  # nothing can be mapped
        return np.zeros(shape, dtype=entry["dtype"])
    try:
        # copy on write: tensors want memory that may be written to
        return np.memmap(folder / f"{name}.bin", entry["dtype"], mode="c", shape=shape)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / name}.bin is damaged ({error}); remove the folder, it is made "
            "again"
        ) from error


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return record if {"job", "done", "columns"} <= record.keys() else {}
    except (OSError, ValueError, AttributeError):
        return {}
