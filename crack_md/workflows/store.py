"""Results that survive a kill: one ASE database, one row per finished relaxation."""

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.db import connect
from ase.db.core import Database

from crack_md.errors import DataError
from crack_md.workflows.records import RelaxationRecord

FILE_NAME = "results.db"
FORMAT_VERSION = 2


def relaxation_key(slab: Atoms, site: str, conditions: Mapping[str, Any]) -> str:
    """Return the hash that names a relaxation: structure, site, model and settings.

    Args:
        slab: the clean slab before any relaxation. What is placed on it follows from
            it and the site, but only to round-off, so it is no part of the key.
        site: what names the start on this slab (`Start.key`); empty for the clean slab.
        conditions: what `ScreenSettings.conditions` returns.
    """
    content = {
        "format": FORMAT_VERSION,
        "numbers": slab.numbers.tolist(),
        # 1e-6 Å is above what text formats lose and below what physics notices.
        "positions": (np.round(slab.positions, 6) + 0.0).tolist(),
        "cell": (np.round(slab.cell.array, 6) + 0.0).tolist(),
        "constraints": [constraint.todict() for constraint in slab.constraints],
        "site": site,
        "conditions": dict(conditions),
    }
    text = json.dumps(content, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


class ResultsStore:
    """The relaxations of one results folder, made under one set of conditions."""

    def __init__(self, folder: Path, conditions: Mapping[str, Any]) -> None:
        self.path = folder / FILE_NAME
        self.conditions = dict(conditions)
        # SQLite locks by itself; ASE's lock file would outlive a killed run.
        self._database: Database = connect(self.path, type="db", use_lock_file=False)
        self._records: dict[str, tuple[int, RelaxationRecord]] = {}

    def load(self) -> None:
        """Read what an earlier run has finished.

        Raises:
            DataError: the database is damaged, foreign, or of other conditions.
        """
        try:
            # A run killed in its first moments leaves an empty database.
            if not self.path.exists() or not (len(self._database) or self._found()):
                metadata = {"crack_md_screen": self.conditions}
                self._database.metadata = metadata  # type: ignore[misc]
                return
            found, rows = self._found(), list(self._database.select())
        except (sqlite3.Error, KeyError, ValueError) as error:
            raise DataError(
                f"cannot read '{self.path}': {error}; it is damaged or no ASE "
                "database: move it away, or give another --out"
            ) from error
        if found != self.conditions:
            raise DataError(self._conflict(found))
        for row in rows:
            record = RelaxationRecord(**row.data["record"])
            self._records[record.key] = (row.id, record)

    def __len__(self) -> int:
        """Return how many relaxations are finished."""
        return len(self._records)

    def record(self, key: str) -> RelaxationRecord | None:
        """Return a finished relaxation, or None."""
        return self._records[key][1] if key in self._records else None

    def atoms(self, key: str) -> Atoms:
        """Return the relaxed structure of a finished relaxation."""
        return self._database.get_atoms(id=self._records[key][0])

    def put(self, record: RelaxationRecord, atoms: Atoms, **columns: Any) -> None:
        """Store one finished relaxation for good.

        Raises:
            DataError: it cannot be written.
        """
        shown = {"slab": record.slab, "status": record.status, **columns}
        if record.site:
            shown["site"] = record.site
        shown = {k: _text(v, k) if isinstance(v, str) else v for k, v in shown.items()}
        try:
            row_id = self._database.write(
                atoms, key_value_pairs=shown, data={"record": asdict(record)}
            )
        except (OSError, sqlite3.Error) as error:
            raise DataError(
                f"cannot write '{self.path}': {error}; what was finished before is "
                "kept: make room and run the same command again"
            ) from error
        self._records[record.key] = (int(row_id), record)

    def _found(self) -> dict[str, Any] | None:
        return self._database.metadata.get("crack_md_screen")

    def _conflict(self, found: Mapping[str, Any] | None) -> str:
        if found is None:
            return f"'{self.path}' is not the result of a screening; give another --out"
        differences = [
            f"{name} {found.get(name)!r} (now {self.conditions.get(name)!r})"
            for name in sorted({*found, *self.conditions})
            if found.get(name) != self.conditions.get(name)
        ]
        return (
            f"'{self.path.parent}' holds results of other settings: "
            f"{', '.join(differences)}; give another --out, or remove the folder"
        )


def _text(value: str, prefix: str) -> str:
    """Return a name that ASE takes as a string column: it refuses numbers."""
    try:
        float(value)
    except ValueError:
        return value
    return f"{prefix}-{value}"


@contextlib.contextmanager
def open_store(folder: Path, conditions: Mapping[str, Any]) -> Iterator[ResultsStore]:
    """Give the store of a folder to one run at a time.

    Raises:
        DataError: the folder cannot be written, is in use, or holds other results.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise DataError(
            f"cannot write to '{folder}': {error.strerror or error}; give another --out"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"another screening is writing to '{folder}'; wait for it, or give "
                "another --out"
            ) from error
        store = ResultsStore(folder, conditions)
        store.load()
        yield store
    finally:
        os.close(lock)
