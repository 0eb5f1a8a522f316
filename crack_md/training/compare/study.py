"""Do what a study lacks, and keep its tables up to date."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from crack_md.training.compare.perform import Outcome
from crack_md.training.compare.plan import (
    Plan,
    Run,
    StudentRun,
    check_folders,
    is_done,
)
from crack_md.training.compare.pool import Event, perform_all
from crack_md.training.compare.tables import write_tables
from crack_md.training.progress import Watch


def run_study(plan: Plan, *, watch: Watch) -> str | None:
    """Do every run without a result; tables are written after each.

    A run that failed before is tried again, one that was interrupted continues.

    Returns:
        Why it ended early ("SIGINT", "SIGTERM"), None when all runs have been tried.

    Raises:
        ConfigError: A run folder holds a run of other settings.
    """
    check_folders(plan)
    missing = [run for run in plan.runs if not is_done(run)]
    n_done = len(plan.runs) - len(missing)
    watch.say(f"{len(plan.runs)} runs, {n_done} of them done before")
    journal = _Journal(plan, missing, watch)
    stopped_by = None
    with watch.watching():
        for event in perform_all(
            missing,
            workers=plan.study.workers,
            stopping=lambda: watch.stop_requested is not None,
        ):
            journal.note(event)
            if event is not None and event[1].status == "stopped":
                stopped_by = event[1].stopped_by
            elif event is not None:
                write_tables(plan)
    write_tables(plan)
    return watch.stop_requested or stopped_by


class _Journal:
    """Lines and a bar: which runs ended, how well, and how long the rest takes."""

    def __init__(self, plan: Plan, missing: list[Run], watch: Watch) -> None:
        self._watch = watch
        self._n_all = len(plan.runs)
        self._n_done = self._n_all - len(missing)
        self._missing = missing
        self._ended: set[str] = set()
        self._work = sum(map(_work, missing)) or 1.0
        # what interrupted runs did in an earlier call is not done in this one
        self._before = {run.name: _fraction(run) for run in missing}
        self._counts: Counter[str] = Counter()
        self._started = time.monotonic()

    def note(self, event: Event) -> None:
        """Show a run that ended, and the bar."""
        if event is not None:
            run, outcome = event
            self._counts[outcome.status] += 1
            left = ""
            if outcome.status != "stopped":
                self._ended.add(run.name)
                left = self._remaining()
            counted = self._n_done + len(self._ended)
            self._watch.say(
                f"[{counted}/{self._n_all}] {run.name}: {_describe(outcome)}{left}"
            )
        failed = f", {self._counts['failed']} failed" if self._counts["failed"] else ""
        self._watch.update(
            self._done(),
            f"run {self._n_done + len(self._ended)}/{self._n_all}{failed}",
        )

    def _done(self) -> float:
        spent = sum(
            _work(run)
            * (
                (1.0 if run.name in self._ended else _fraction(run))
                - self._before[run.name]
            )
            for run in self._missing
        )
        return min(1.0, spent / self._work)

    def _remaining(self) -> str:
        done = self._done()
        if not 0.01 < done < 1:  # too early to tell, or nothing left
            return ""
        rest_s = (time.monotonic() - self._started) * (1 - done) / done
        return f"; about {rest_s / 60:.0f} min left"


def _work(run: Run) -> float:
    if not isinstance(run, StudentRun):
        return 0.0
    return float(run.config.run.max_steps or run.config.run.max_seconds or 1)


def _fraction(run: Run) -> float:
    """Return how much of its budget a run under way has used."""
    if not isinstance(run, StudentRun):
        return 0.0
    last = _last_record(run.folder / "metrics.jsonl")
    ends = run.config.run
    parts = (
        last.get("step", 0) / (ends.max_steps or float("inf")),
        last.get("elapsed_s", 0) / (ends.max_seconds or float("inf")),
    )
    return min(1.0, max(parts))


def _last_record(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes().rsplit(b"\n", maxsplit=2)[-2])
    except (OSError, IndexError, ValueError):  # none yet, or half a line
        return {}


def _describe(outcome: Outcome) -> str:
    if outcome.status == "failed":
        return f"failed: {outcome.error}"
    if outcome.result is None:
        return "stopped; the same command continues it"
    found = outcome.result["labels"]["all"]
    wall = outcome.result.get("wall_s")
    return (
        f"{found['force_mae_meV_per_A']:.1f} meV/Å, "
        f"{found['energy_mae_meV_per_atom']:.2f} meV/atom"
        + (f", {wall:.0f} s" if wall is not None else "")
    )
