"""Runs in worker processes, which read the data once and stop when asked politely."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from crack_md.errors import DataError
from crack_md.training.compare.cache import DataCache
from crack_md.training.compare.perform import Outcome, attempt, fail
from crack_md.training.compare.plan import Run

TICK_S = 1.0
"""How often progress is shown, and a wish to stop is noticed."""

Event = tuple[Run, Outcome] | None
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
    crew: list[_Worker] = []
    asked = False
    try:
        while True:
            if stopping() and not asked:
                asked = True
                waiting.clear()
                for worker in crew:
                    worker.process.terminate()
            crew = [one for one in crew if one.run or one.process.is_alive()]
            busy = {one.pipe: one for one in crew if one.run is not None}
            while waiting and len(busy) < workers:
                worker = _idle(crew)
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
        for worker in crew:
            worker.pipe.close()  # an idle worker ends at that, a busy one when it can
            worker.process.join(timeout=10)
            worker.process.kill()


def _idle(crew: list[_Worker]) -> _Worker:
    """Return a member of the crew without a run, a new one if need be."""
    for worker in crew:
        if worker.run is None:
            return worker
    crew.append(_hire())
    return crew[-1]


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
        return run, Outcome("stopped", stopped_by="SIGTERM")
    return run, fail(
        run,
        DataError(
            f"the worker process died (exit code {worker.process.exitcode}), most "
            "often for lack of memory; try fewer workers"
        ),
    )


def _hire() -> _Worker:
    # a forked child of a process that ran PyTorch can hang in its thread pool
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # so that the end of the worker is the end of the pipe
    return _Worker(process, ours)


def _work(pipe: Connection) -> None:
    os.setpgrp()  # Ctrl-C reaches the parent alone, which asks every worker once
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    torch.set_num_threads(1)  # workers share the cores among themselves
    cache = DataCache()
    while True:
        try:
            pipe.send(attempt(pipe.recv(), cache))
        except (EOFError, OSError):  # the parent has no more work, or is gone
            return


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # as if asked: a run saves its state
