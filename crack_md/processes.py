"""Worker processes: fresh ones, which end with the process that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

SPAWN = multiprocessing.get_context("spawn")
"""A forked child of a process that ran PyTorch can hang in its thread pool."""


class WorkerProcess(NamedTuple):
    """A process, and the connection to it."""

    process: BaseProcess
    connection: "Connection[Any, Any]"


def start_process(
    serve: Callable[..., None], *arguments: Any, name: str | None = None
) -> WorkerProcess:
    """Start a process that inherits nothing but the environment.

    Args:
        serve: a function of a module; called with the other end of the connection.
        arguments: what else it is called with.
        name: of the process.
    """
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(
        target=serve, args=(theirs, *arguments), name=name, daemon=True
    )
    with _interrupts_held():
        process.start()
    theirs.close()  # then the end of the worker is the end of the connection
    return WorkerProcess(process, ours)


def end_with_parent(end: Callable[[], object] = lambda: os._exit(1)) -> None:
    """End this process when the one that started it is killed and can no longer ask.

    Args:
        end: ends it; called from a thread.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            end()

    threading.Thread(target=watch, daemon=True).start()


def describe_exit(exit_code: int | None) -> str:
    """Return how a process ended: by which signal, or with which code."""
    if exit_code is not None and exit_code < 0:
        return f"signal {-exit_code} ({signal.Signals(-exit_code).name})"
    return f"exit code {exit_code}"


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C from a process that starts, which it would meet half awake.

    A blocked signal stays blocked in the child; here it arrives a moment later.
    """
    resource_tracker.ensure_running()  # would unblock it
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
