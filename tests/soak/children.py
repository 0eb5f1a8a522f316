"""A function in a process of its own, that may hang, crash or take all memory.

Processes are forked from one that has imported everything, so that hundreds a minute
can be tried and killed.
"""

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from crack_md import cli

PEAK_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of what the system counts the peak of memory in."""


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    """Exit code; minus the signal where one ended it."""
    seconds: float
    """As the clock on the wall counts them."""
    cpu_seconds: float
    growth_MB: float
    """Peak of memory beyond what the process had when it began."""
    text: str
    """What it printed."""


def in_child(
    function: Callable[[], object],
    log: Path,
    *,
    seconds: float,
    end_with: signal.Signals = signal.SIGKILL,
) -> Ended:
    """Return how a function ended in a forked process, or was ended after some time."""
    before, begin = _own_bytes(), time.monotonic()
    pid = os.fork()
    if pid == 0:
        _run(function, log)
    status, usage = _wait(pid, begin + seconds, end_with)
    return Ended(
        os.waitstatus_to_exitcode(status),
        time.monotonic() - begin,
        usage.ru_utime + usage.ru_stime,
        max(0.0, (usage.ru_maxrss * PEAK_UNIT - before) / 1e6),
        log.read_text(errors="replace"),
    )


def run_command(*arguments: str | Path | float) -> Callable[[], object]:
    """Return a function that runs ``crack-md`` with these arguments."""

    def run() -> None:
        sys.argv = ["crack-md", *map(str, arguments)]
        cli.main()

    return run


def _own_bytes() -> int:
    """Return the memory of this process without its libraries, which forks map anew.

    Its peak where only that is known.
    """
    statm = Path("/proc/self/statm")
    if statm.exists():
        _, resident, shared, *_ = map(int, statm.read_text().split())
        return (resident - shared) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT


def _wait(
    pid: int, until: float, end_with: signal.Signals
) -> tuple[int, resource.struct_rusage]:
    """Return how a process ended; after some time a signal ends it."""
    nap, ends = 0.001, end_with
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return status, usage
        if time.monotonic() > until:
            os.kill(pid, ends)
            # whoever does not end by this signal is killed for good
            ends, until = signal.SIGKILL, until + 30
        time.sleep(nap)
        nap = min(0.02, nap * 1.2)


def _run(function: Callable[[], object], log: Path) -> None:
    """Run the function in this process, output to a file, and end the process."""
    code = 1
    try:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
