import itertools
import time

import pytest

from crack_md.calculators import timing


def test_a_step_of_14_4_ms_makes_6_ns_a_day() -> None:
    assert timing.ns_per_day(1.0) == pytest.approx(0.0864)
    assert timing.ns_per_day(0.0144) == pytest.approx(6.0)
    assert timing.ns_per_day(1.0, timestep_fs=2.0) == pytest.approx(0.1728)


def test_summary_of_known_times() -> None:
    found = timing.summary([5.0, 1.0, 2.0, 4.0])
    assert found == timing.Summary(3.0, 3.0, 1.0, 5.0, 4)


def test_only_the_call_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()
    events: list[str] = []
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    seconds = timing.seconds_per_call(
        lambda: events.append("call"),
        2,
        advance=lambda: events.append("advance"),
        synchronize=lambda: events.append("wait"),
    )
    assert seconds == [1.0, 1.0]
    assert events == ["advance", "wait", "call", "wait"] * 2


def test_peak_counts_memory_that_is_gone() -> None:
    timing.reset_peak()
    before = timing.peak_bytes()
    block = bytearray(80 << 20)
    block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])  # pages count when written to
    del block
    assert timing.peak_bytes() - before > 70 << 20
    assert timing.resident_bytes() <= timing.peak_bytes()
