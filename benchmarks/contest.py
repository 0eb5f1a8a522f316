"""Engines called in alternation: each case goes round and round among them.

One worker at a time is at work. A case that an engine cannot do, within the limits of
time and memory, is a row with the reason; larger cases of the same work are then not
tried where they are bound to fail too.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contestant import Contestant, Settings
from benchmarks.engines import Engine
from benchmarks.peers.process import PeerError
from benchmarks.work import Case
from crack_md.bench.timing import summary

Rates = dict[str, dict[str, float]]
QUICK_S = 2.0
"""A first call below this is followed by more before anything counts."""


@dataclass
class Row:
    """What one engine did in one case."""

    engine: str
    case: Case
    reason: str = ""
    """Why there are no times."""
    first_s: float | None = None
    rounds: list[list[float]] = field(default_factory=list)
    """Times of every call in s, round by round."""
    peak_bytes: int = 0
    flops: float | None = None
    bytes: float | None = None


@dataclass
class Contest:
    """All that was found."""

    contestants: list[Contestant]
    rows: list[Row] = field(default_factory=list)
    rates: Rates = field(default_factory=dict)
    """Operations/s of a large product by dtype, and bytes/s of a large copy."""


def run_contest(
    engines: Sequence[Engine],
    cases: Sequence[Case],
    settings: Settings,
    *,
    report: Callable[[Contest], None] = lambda _: None,
) -> Contest:
    """Return a row for every engine and case, and the engines with their cold starts.

    ``report`` is called with all there is after every case.
    """
    contestants = [Contestant(one, settings, reason=one.missing) for one in engines]
    contest = Contest(contestants)
    try:
        for contestant in contestants:
            _cold_start(contestant, cases[0])
        contest.rates = _rates(contestants, {})
        for case in cases:
            contest.rows += _run_case(contestants, case, settings)
            report(contest)
        contest.rates = _rates(contestants, contest.rates)
    finally:
        _stop(contestants)
    return contest


def _cold_start(contestant: Contestant, case: Case) -> None:
    """Time a fresh process until its first result, and keep what it says."""
    if contestant.reason:
        return
    try:
        contestant.ask("prepare", work="single", structures=case.as_lists()[:1])
        limit = contestant.settings.start_limit_s
        answer = contestant.ask("call", n=1, timeout_s=limit)
        contestant.prediction = contestant.ask("predict")
    except PeerError as error:
        contestant.reason = str(error)
        return
    contestant.cold_start["first_s"] = answer["seconds"][0]


def _rates(contestants: Sequence[Contestant], known: Rates) -> Rates:
    """Return what the machine reaches, the best of now and before, by dtype.

    Our own engines have what it takes to measure that.
    """
    found: Rates = {}
    for contestant in contestants:
        dtype = contestant.engine.dtype
        ours = contestant.engine.adapter == "crack.py" and not contestant.reason
        if not ours or dtype in found:
            continue
        with contextlib.suppress(PeerError):
            now = contestant.ask("rates", dtype=dtype)
            before = known.get(dtype, now)
            found[dtype] = {name: max(now[name], before[name]) for name in now}
    return known | found


def _run_case(
    contestants: Sequence[Contestant], case: Case, settings: Settings
) -> list[Row]:
    rows = {one.engine.name: Row(one.engine.name, case) for one in contestants}
    alone = settings.device != "cpu" and case.n_atoms >= settings.alone_from
    groups = [[one] for one in contestants] if alone else [contestants]
    if alone:
        _stop(contestants)
    for group in groups:
        _alternate(group, rows, settings)
        if alone:
            _stop(group)
    return list(rows.values())


def _alternate(
    contestants: Sequence[Contestant], rows: Mapping[str, Row], settings: Settings
) -> None:
    """Warm engines up one after the other, then call them in turn."""
    calls: dict[str, int] = {}
    for contestant in contestants:
        row = rows[contestant.engine.name]
        row.reason = contestant.reason or contestant.given_up.get(row.case.work, "")
        if not row.reason:
            _attempt(contestant, row, lambda c, r: _warm_up(c, r, calls))
    for _ in range(settings.rounds):
        for contestant in contestants:
            row = rows[contestant.engine.name]
            if not row.reason and _has_time(row, settings):
                _attempt(contestant, row, lambda c, r: _one_round(c, r, calls))
    for contestant in contestants:
        row = rows[contestant.engine.name]
        # what fails here takes no times away, and the next request starts a new worker
        with contextlib.suppress(PeerError):
            if not row.reason:
                _count(contestant, row)
        with contextlib.suppress(PeerError):
            if contestant.worker is not None and contestant.worker.runs:
                contestant.ask("release")


def _stop(contestants: Sequence[Contestant]) -> None:
    for contestant in contestants:
        contestant.stop()


def _attempt(
    contestant: Contestant, row: Row, action: Callable[[Contestant, Row], Any]
) -> None:
    try:
        action(contestant, row)
    except PeerError as error:
        row.reason = str(error)
        if error.final:
            size = row.case.n_atoms
            contestant.given_up[row.case.work] = f"{row.reason} at {size} atoms"


def _warm_up(contestant: Contestant, row: Row, calls: dict[str, int]) -> None:
    """Prepare the case, and find out how many calls make a round."""
    settings, case = contestant.settings, row.case
    expected = contestant.pace.get(case.work, 0.0) * case.n_atoms
    if expected > settings.limit_s:
        raise PeerError(
            f"a call would take about {expected:.0f} s, limit {settings.limit_s:.0f} s",
            final=True,
        )
    contestant.ask("prepare", work=case.work, structures=case.as_lists())
    answer = contestant.ask("call", n=1, timeout_s=settings.start_limit_s)
    row.first_s = answer["seconds"][0]
    answer = contestant.ask("call", n=1)
    once = answer["seconds"][0]
    row.peak_bytes = answer["peak_bytes"]
    contestant.pace[case.work] = once / case.n_atoms
    if case.work == "md":
        expected = once * (settings.md_steps + settings.md_warm_up)
        if expected > settings.limit_s:
            steps = f"{settings.md_steps:,} steps"
            raise PeerError(
                f"{steps} would take {expected:.0f} s, limit {settings.limit_s:.0f} s",
                final=True,
            )
        contestant.ask("call", n=settings.md_warm_up)
        calls[contestant.engine.name] = max(settings.md_steps // settings.rounds, 1)
        return
    if once < QUICK_S:
        answer = contestant.ask("call", n=2)
        once = summary(answer["seconds"]).median_s
    calls[contestant.engine.name] = max(round(settings.round_s / once), 1)


def _one_round(contestant: Contestant, row: Row, calls: Mapping[str, int]) -> None:
    answer = contestant.ask("call", n=calls[contestant.engine.name])
    row.rounds.append(answer["seconds"])
    pace = min(answer["seconds"]) / row.case.n_atoms
    contestant.pace[row.case.work] = min(pace, contestant.pace[row.case.work])
    row.peak_bytes = max(row.peak_bytes, answer["peak_bytes"])


def _has_time(row: Row, settings: Settings) -> bool:
    """Return whether one more round fits into the limit; the first always does."""
    if not row.rounds or row.case.work == "md":
        return True
    spent = sum(map(sum, row.rounds))
    return spent + sum(row.rounds[-1]) <= settings.limit_s


def _count(contestant: Contestant, row: Row) -> None:
    """Count operations of our own engines."""
    if contestant.engine.adapter == "crack.py" and row.case.work != "md":
        answer = contestant.ask("count")
        row.flops, row.bytes = answer["flops"], answer["bytes"]
