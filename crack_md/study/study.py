"""Do what a study lacks, in worker processes, and keep its tables up to date."""

import json
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from crack_md.errors import DataError
from crack_md.processes import describe_exit, end_with_parent, start_process
from crack_md.study.perform import DataCache, RunOutcome, attempt, fail
from crack_md.study.plan import Plan, Run, StudentRun, check_folders, is_done
from crack_md.study.tables import write_tables
from crack_md.training.loop.monitor import RunMonitor

TICK_S = 1.0
"""How often progress is shown, and a wish to stop is noticed."""

Event = tuple[Run, RunOutcome] | None
"""A run that has ended, or None where some time has passed."""


def perform_all(
    runs: Sequence[Run],
    *,
    workers: int,
    stopping: Callable[[], bool],
    cache: DataCache | None = None,
) -> Iterator[Event]:
    """Yield every run as it ends.

    Args:
        runs: In the order in which they start.
        workers: Processes; with 1 everything happens in this one.
        stopping: Asked often. Once it says yes no run starts, and those under way save
            their state and end as "stopped".
        cache: Data of this process, used where there is one worker.
    """
    if workers > 1 and len(runs) > 1:
        yield from _in_processes(runs, min(workers, len(runs)), stopping)
        return
    cache = cache or DataCache()
    for run in runs:
        if stopping():
            return
        outcome = attempt(run, cache)
        yield run, outcome
        if outcome.status == "stopped":
            return


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    run: Run | None = None


def _in_processes(
    runs: Sequence[Run], workers: int, stopping: Callable[[], bool]
) -> Iterator[Event]:
    waiting = deque(runs)
    processes: list[_Worker] = []
    asked = False
    try:
        while True:
            if stopping() and not asked:
                asked = True
                waiting.clear()
                for worker in processes:
                    worker.process.terminate()
            processes = [one for one in processes if one.run or one.process.is_alive()]
            busy = {one.pipe: one for one in processes if one.run is not None}
            while waiting and len(busy) < workers:
                worker = _idle(processes)
                worker.run = waiting.popleft()
                worker.pipe.send(worker.run)
                busy[worker.pipe] = worker
            if not busy:
                return
            for pipe in wait(list(busy), timeout=TICK_S):
                assert isinstance(pipe, Connection)
                yield _collect(busy[pipe], was_asked=asked)
            yield None
    finally:
        for worker in processes:
            worker.pipe.close()  # an idle worker ends at that, a busy one when it can
            worker.process.join(timeout=10)
            worker.process.kill()


def _idle(processes: list[_Worker]) -> _Worker:
    """Return a process without a run, a new one if need be."""
    for worker in processes:
        if worker.run is None:
            return worker
    processes.append(_Worker(*start_process(_serve)))
    return processes[-1]


def _collect(worker: _Worker, *, was_asked: bool) -> Event:
    """Return what became of a worker's run, also where the worker died of it."""
    run = worker.run
    assert run is not None
    worker.run = None
    try:
        return run, worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
    if was_asked:
        return run, RunOutcome("stopped", stopped_by="SIGTERM")
    return run, fail(
        run,
        DataError(
            f"the worker process died ({describe_exit(worker.process.exitcode)}), most "
            "often for lack of memory; try fewer workers"
        ),
    )


def _serve(pipe: Connection) -> None:
    os.setpgrp()  # Ctrl-C reaches the parent alone, which asks every worker once
    # as if asked: a run saves its state
    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    torch.set_num_threads(1)  # workers share the cores among themselves
    cache = DataCache()
    while True:
        try:
            pipe.send(attempt(pipe.recv(), cache))
        except (EOFError, OSError):  # the parent has no more work, or is gone
            return


def run_study(plan: Plan, *, watch: RunMonitor) -> str | None:
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

    def __init__(self, plan: Plan, missing: list[Run], watch: RunMonitor) -> None:
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


def _describe(outcome: RunOutcome) -> str:
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
