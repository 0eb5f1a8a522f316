import mmap
import time
from collections.abc import Callable

import pytest

from crack_md.bench import timing


def test_a_step_of_14_4_ms_makes_6_ns_a_day() -> None:
    assert timing.ns_per_day(1.0) == pytest.approx(0.0864)
    assert timing.ns_per_day(0.0144) == pytest.approx(6.0)
    assert timing.ns_per_day(1.0, timestep_fs=2.0) == pytest.approx(0.1728)


def test_summary_of_known_times() -> None:
    found = timing.summary([5.0, 1.0, 2.0, 4.0])
    assert found == timing.TimingSummary(3.0, 3.0, 1.0, 5.0, 4)


def test_only_the_call_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def spend(seconds: float) -> Callable[[], None]:
        def step() -> None:
            nonlocal now
            now += seconds

        return step

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    seconds = timing.seconds_per_call(
        spend(1.0), 2, advance=spend(100.0), synchronize=spend(10.0)
    )
    # the wait for the GPU behind a call is a part of it
    assert seconds == [11.0, 11.0]
    assert now == 242.0


def test_peak_counts_memory_that_is_gone() -> None:
    timing.reset_peak()
    before = timing.peak_bytes()
    # from the system itself: the C library may still hold memory that was freed before
    with mmap.mmap(-1, 80 << 20) as block:
        for page in range(0, len(block), 1 << 12):  # pages count when written to
            block[page] = 1
    assert timing.peak_bytes() - before > 70 << 20
    assert timing.resident_bytes() <= timing.peak_bytes()
