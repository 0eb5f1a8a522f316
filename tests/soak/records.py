"""Records of a soak: one JSON file for each part, complete or not there."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crack_md.files import read_json, write_json

Record = dict[str, Any]
ROOT = Path(__file__).parents[2]
CHUNK = 100
"""Cases between two saves of a sweep."""
PACKAGES = ("torch", "numpy", "ase", "vesin", "spglib", "pydantic")


def write_record(folder: Path, part: str, found: Record) -> None:
    """Write what a part found, with what it depends on."""
    write_json(folder / f"{part}.json", {**found, "circumstances": circumstances()})


def sweep(folder: Path, cases: int, try_cases: Callable[[int, int], Record]) -> Record:
    """Return the sums over numbered cases; a stopped sweep goes on where it was."""
    path = folder / "progress.json"
    found: Record = read_json(path) if path.exists() else {"cases": 0, "seconds": 0.0}
    while (begin := found["cases"]) < cases:
        start = time.monotonic()
        part = try_cases(begin, min(cases, begin + CHUNK))
        part["seconds"] = round(time.monotonic() - start, 1)
        found = {
            key: found.get(key, type(value)()) + value for key, value in part.items()
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    return found


def circumstances() -> Record:
    """Return date, commit, versions and machine."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        **versions,
    }


def memory_of(pid: int) -> float:
    """Return the resident memory of a process in MB; 0 where it has ended."""
    command = ["ps", "-o", "rss=", "-p", str(pid)]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return float(text.strip() or 0) * 1024 / 1e6


def one_thread() -> dict[str, str]:
    """Return an environment for commands: one thread, and this checkout's package."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def crack_md(*arguments: str | Path | float) -> list[str]:
    """Return the command line of ``crack-md`` with these arguments."""
    code = (
        # a job in the background is started with Ctrl-C ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from crack_md.cli import main; main()"
    )
    return [sys.executable, "-c", code, *map(str, arguments)]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
