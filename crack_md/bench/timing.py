"""Seconds and memory of repeated calls, with the standard library alone.

The workers of ``benchmarks/peers`` load this file by its path into environments that
have neither this package nor its dependencies: users and peers are timed alike.
"""

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

SECONDS_PER_DAY = 86400.0
_STATUS, _PEAK_SWITCH = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class TimingSummary:
    """What several times of one call come to, in s."""

    median_s: float
    mean_s: float
    low_s: float
    """Quickest; on a busy machine the nearest to what the code costs."""
    high_s: float
    n_calls: int


def summary(seconds: Sequence[float]) -> TimingSummary:
    """Return median, mean and range of times in s."""
    return TimingSummary(
        median(seconds), fmean(seconds), min(seconds), max(seconds), len(seconds)
    )


def seconds_per_call(
    call: Callable[[], Any],
    n_calls: int,
    *,
    advance: Callable[[], None] = lambda: None,
    synchronize: Callable[[], None] = lambda: None,
) -> list[float]:
    """Return the time of each of several calls in s.

    Args:
        call: What is timed.
        n_calls: How often.
        advance: Run before every call, untimed: moves atoms, say.
        synchronize: Waits for a GPU; run before every reading of the clock.
    """
    seconds = []
    for _ in range(n_calls):
        advance()
        synchronize()
        begin = time.perf_counter()
        call()
        synchronize()
        seconds.append(time.perf_counter() - begin)
    return seconds


def ns_per_day(seconds_per_step: float, *, timestep_fs: float = 1.0) -> float:
    """Return how many ns of molecular dynamics a day of such steps makes."""
    return SECONDS_PER_DAY / seconds_per_step * timestep_fs * 1e-6


def resident_bytes() -> int:
    """Return how much memory of the machine this process holds now."""
    found = _status_bytes("VmRSS")
    return _largest_ever() if found is None else found


def reset_peak() -> None:
    """Let `peak_bytes` count from now on, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        _PEAK_SWITCH.write_text("5")


def peak_bytes() -> int:
    """Return the most memory this process held since `reset_peak`.

    Elsewhere than on Linux: since its start.
    """
    found = _status_bytes("VmHWM")
    return _largest_ever() if found is None else found


def _status_bytes(field: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == field:
            return 1024 * int(rest.split()[0])
    return None


def _largest_ever() -> int:
    # ru_maxrss is in KiB, on macOS in bytes
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
