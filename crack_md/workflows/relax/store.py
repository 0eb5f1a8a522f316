"""Relaxations that survive a kill: one database row for each that has ended.

The database is an SQLite file, or one on a PostgreSQL server.
"""

import contextlib
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.db import connect
from ase.db.core import Database

from crack_md.errors import ConfigError, DataError
from crack_md.files import as_plain, claim_folder, differences
from crack_md.structures import is_locked
from crack_md.workflows.relax.relax import is_settled

FILE_NAME = "results.db"
FORMAT_VERSION = 3


ADSORBED = ("converged", "plateau", "not_converged")
"""Site statuses whose energies mean an adsorbed species."""


@dataclass(frozen=True)
class RelaxationRecord:
    """One relaxation as it is stored; everything else is worked out from these."""

    key: str
    slab: str
    site: str
    """Label of the starting site; empty for a clean slab."""
    status: str
    """``converged``, ``plateau``, ``not_converged``, ``failed``, or the worst anomaly:
    ``desorbed``, ``dissociated``, ``intercalated``, ``surface_changed``,
    ``out_of_domain``."""
    energy: float | None = None
    max_force: float | None = None
    n_steps: int | None = None
    final_site: str | None = None
    migrated: bool = False
    height: float | None = None
    error: str = ""
    adsorbate: str = ""
    azimuth_deg: int | None = None
    final_coordination: int | None = None
    final_elements: str = ""
    """Of the slab atoms that the binding atom ended on: ``Pt2Ru``."""
    anomalies: str = ""
    """All that was found, ``site_migrated`` and ``not_converged`` included."""
    domain_distance: float | None = None
    """From the training data, in units of the limit."""
    stalled_at: int | None = None
    """Step after which FIRE went on because the optimizer got nowhere."""

    @property
    def is_settled(self) -> bool:
        """Return whether the energy is that of a minimum, as far as forces can tell."""
        return is_settled(self.status, self.max_force)


def relaxation_key(slab: Atoms, site: str, conditions: Mapping[str, Any]) -> str:
    """Return the hash that names a relaxation: structure, site, model and settings.

    All that decides the energy or a verdict is in it; tags are, because a bond to an
    atom that is not tagged as surface means intercalation.

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
        "pbc": slab.pbc.tolist(),
        "tags": slab.get_tags().tolist(),
        "constraints": [constraint.todict() for constraint in slab.constraints],
        "state": _electronic_state(slab),
        "site": site,
        "conditions": dict(conditions),
    }
    text = json.dumps(content, sort_keys=True, default=as_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _electronic_state(atoms: Atoms) -> dict[str, Any]:
    """Return what calculators read of a structure besides its geometry, where given."""
    arrays = {
        name: atoms.arrays[name].tolist()
        for name in ("initial_magmoms", "initial_charges")
        if name in atoms.arrays and atoms.arrays[name].any()
    }
    return arrays | {
        name: atoms.info[name] for name in ("charge", "spin") if name in atoms.info
    }


class ResultsStore:
    """The relaxations of one results folder, made under one set of conditions.

    Args:
        folder: the results folder.
        conditions: what `ScreenSettings.conditions` returns.
        address: of a database server; None for a file in the folder.
    """

    def __init__(
        self, folder: Path, conditions: Mapping[str, Any], address: str | None = None
    ) -> None:
        self.folder = folder
        self.path = folder / FILE_NAME if address is None else None
        self.place = redact_address(address or folder / FILE_NAME)
        self.conditions = dict(conditions)
        database, errors = connect_to(address or folder / FILE_NAME)
        self._database, self._write_errors = database, errors
        bad_rows: tuple[type[Exception], ...] = (KeyError, TypeError, ValueError)
        self._read_errors = errors + bad_rows
        self._connection: sqlite3.Connection | None = None
        """Open while the file is held; ASE opens one for every call otherwise."""
        self._records: dict[str, tuple[int, RelaxationRecord]] = {}

    def load(self) -> None:
        """Read what an earlier run has finished.

        Raises:
            DataError: the database is damaged, foreign, of other conditions, or in use.
        """
        try:
            # A run killed in its first moments leaves an empty database.
            is_new = self.path is not None and not self.path.exists()
            if is_new or not (len(self._database) or self._found()):
                metadata = {"crack_md_screen": self.conditions}
                self._database.metadata = metadata  # type: ignore[misc]
                return
            if self._found() == self.conditions:
                for row in self._database.select(columns=["id"]):
                    record = RelaxationRecord(**row.data["record"])
                    self._records[record.key] = (row.id, record)
                return
            found = self._found()
        except self._read_errors as error:
            raise self._unusable(error) from error
        raise DataError(self._conflict(found))

    def _unusable(self, error: Exception) -> DataError:
        reason = " ".join(str(error).split())
        if is_locked(error):
            what = f"'{self.place}' is in use by another program: {reason}"
            return DataError(f"{what}; close that, and run the same command again")
        if self.path is None:
            return DataError(
                f"cannot use the database '{self.place}': {reason}; is the server "
                "running, and does the database exist?"
            )
        return DataError(
            f"cannot read '{self.place}': {reason}; it is damaged or no ASE database: "
            "move it away, or give another --out"
        )

    @contextlib.contextmanager
    def hold_open(self) -> Iterator[None]:
        """Keep the file open: others may read it, and writing is quicker."""
        if self.path is None:
            yield
            return
        with write_ahead(self._database) as connection:
            self._connection = connection
            try:
                yield
            finally:
                self._connection = None

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
        if self.path is not None and not self.path.exists():
            # SQLite would go on writing to the file that has lost its name
            raise DataError(
                f"'{self.path}' was removed while the run went on; run the same "
                "command again to start anew"
            )
        shown = {"slab": record.slab, "status": record.status, **columns}
        if record.site:
            shown["site"] = record.site
        shown = {
            k: stored_text(v, k) if isinstance(v, str) else v for k, v in shown.items()
        }
        try:
            row_id = self._database.write(
                atoms, key_value_pairs=shown, data={"record": asdict(record)}
            )
            if self._connection is not None:
                self._connection.commit()
        except self._write_errors as error:
            what = "close the program that uses it" if is_locked(error) else "make room"
            raise DataError(
                f"cannot write '{self.place}': {error}; what was finished before is "
                f"kept: {what} and run the same command again"
            ) from error
        self._records[record.key] = (int(row_id), record)

    def _found(self) -> dict[str, Any] | None:
        return self._database.metadata.get("crack_md_screen")

    def _conflict(self, found: Mapping[str, Any] | None) -> str:
        if found is None:
            return (
                f"'{self.place}' is not the result of a screening; give another --out"
            )
        return (
            f"'{self.folder if self.path else self.place}' holds results of other "
            f"settings: {differences(found, self.conditions)}; give another --out, or "
            f"remove the {'folder' if self.path else 'tables'}"
        )


def stored_text(value: str, column: str) -> str:
    """Return a text that ASE takes as a string column: it refuses numbers and truth.

    Texts that begin like the result get the same words before them, so that no two
    texts become one.
    """
    if value.startswith(f"{column}-") or value in ("True", "False"):
        return f"{column}-{value}"
    try:
        float(value)
    except ValueError:
        return value
    return f"{column}-{value}"


@contextlib.contextmanager
def open_store(
    folder: Path, conditions: Mapping[str, Any], *, address: str | None = None
) -> Iterator[ResultsStore]:
    """Give the store of a folder to one run at a time.

    Args:
        folder: the results folder.
        conditions: what `ScreenSettings.conditions` returns.
        address: of a database server; None for a file in the folder. Only runs of this
            folder are kept apart.

    Raises:
        DataError: the folder cannot be written, is in use, or holds other results.
    """
    with claim_folder(folder):
        store = ResultsStore(folder, conditions, address)
        store.load()
        with store.hold_open():
            yield store


SERVER = "postgresql://"
PATIENCE_S = 1.0
"""How long to wait for others who read the file, before it keeps its journal mode."""


def check_address(address: str) -> None:
    """Refuse what is not the address of a PostgreSQL server.

    Raises:
        ConfigError: it is something else.
    """
    if not address.startswith(SERVER):
        raise ConfigError(
            f"--db is '{redact_address(address)}'; expected "
            "postgresql://user:password@host:5432/name (without --db, relaxations are "
            "kept in results.db in the --out folder)"
        )


def redact_address(address: str | Path) -> str:
    """Return an address without the password in it."""
    return re.sub(r"(//[^:/@]*):[^@]*@", r"\1:***@", str(address))


def connect_to(address: str | Path) -> tuple[Database, tuple[type[Exception], ...]]:
    """Return the database, and what it raises where it cannot be used."""
    if isinstance(address, Path):
        # SQLite locks by itself; ASE's lock file would outlive a killed run.
        database = connect(address, type="db", use_lock_file=False)
        return database, (OSError, sqlite3.Error)
    import psycopg2

    return connect(address), (OSError, psycopg2.Error)


@contextlib.contextmanager
def write_ahead(database: Any) -> Iterator[sqlite3.Connection]:
    """Hold an SQLite file open, and let others read it meanwhile, where that works.

    Changes go to a second file beside it (write-ahead log), and back at the end, so
    that what is left is one file again. After a kill SQLite finds both. Network file
    systems may not be able to; the file is then written as ever.
    """
    with database as opened:
        connection: sqlite3.Connection = opened.connection
        _set_journal(connection, "WAL")
        try:
            yield connection
        finally:
            connection.rollback()  # of what could not be written
            _set_journal(connection, "DELETE")


def _set_journal(connection: sqlite3.Connection, mode: str) -> None:
    (patience_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout={round(1000 * PATIENCE_S)}")
    try:
        connection.execute(f"PRAGMA journal_mode={mode}").fetchone()
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA journal_mode=DELETE").fetchone()
    connection.execute(f"PRAGMA busy_timeout={patience_ms}")
