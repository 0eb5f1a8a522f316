"""Drivers of screenings that get killed."""

import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import benchmarks.screen_kills
from tests.cli.commands import command, one_thread


def write_slabs(path: Path, count: int) -> Path:
    """Write so many slabs of metals under strain, with names."""
    return benchmarks.screen_kills.write_slabs(path, count, strain=1e-3)


def rows_of(path: Path) -> int:
    """Return how many relaxations are stored; ase.db would make tables itself."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return int(connection.execute("select count(*) from systems").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def killed_after(
    arguments: list[Any],
    database: Path,
    n_rows: int,
    how: signal.Signals = signal.SIGKILL,
    limit_s: float = 240.0,
) -> int:
    """Start a screening, kill it when it has so many rows, and return how many."""
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=one_thread(),
    )
    deadline = time.monotonic() + limit_s
    while rows_of(database) < n_rows and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(how)  # nothing where it has ended
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -how, errors
    return rows_of(database)
