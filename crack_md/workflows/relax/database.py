"""Where relaxations are kept: an SQLite file, or a database on a PostgreSQL server."""

import contextlib
import importlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ase.db import connect
from ase.db.core import Database

from crack_md.errors import ConfigError, MissingDependencyError

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
            f"--db is '{shown(address)}'; expected "
            "postgresql://user:password@host:5432/name (without --db, relaxations are "
            "kept in results.db in the --out folder)"
        )


def shown(address: str | Path) -> str:
    """Return an address without the password in it."""
    return re.sub(r"(//[^:/@]*):[^@]*@", r"\1:***@", str(address))


def connect_to(address: str | Path) -> tuple[Database, tuple[type[Exception], ...]]:
    """Return the database, and what it raises where it cannot be used.

    Raises:
        MissingDependencyError: ASE's backend of the server is not installed.
    """
    if isinstance(address, Path):
        # SQLite locks by itself; ASE's lock file would outlive a killed run.
        database = connect(address, type="db", use_lock_file=False)
        return database, (OSError, sqlite3.Error)
    try:
        errors = importlib.import_module("psycopg2").Error
        return connect(address), (OSError, errors)
    except ImportError as error:
        raise MissingDependencyError.of(
            "ase-db-backends", extra="train", purpose=f"--db {shown(address)}"
        ) from error


@contextlib.contextmanager
def written_ahead(database: Any) -> Iterator[sqlite3.Connection]:
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
