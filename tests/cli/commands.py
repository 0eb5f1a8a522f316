"""The command line as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

# a runner without a terminal may have left Ctrl-C ignored for its children
RUN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from crack_md.cli import main; main()"
)


def one_thread() -> dict[str, str]:
    """Return the environment; workers would wait for each other's threads."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def command(*arguments: str | Path | float) -> list[str]:
    """Return the command line of ``crack-md`` with these arguments."""
    return [sys.executable, "-c", RUN, *map(str, arguments)]


def crack_md(*arguments: str | Path | float) -> subprocess.CompletedProcess[str]:
    """Return what a run of ``crack-md`` printed and how it ended."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        check=False,
        env=one_thread(),
    )
