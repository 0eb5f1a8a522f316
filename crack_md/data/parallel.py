"""Several processes: a function over many items, and who of a run comes first."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
from torch import distributed

from crack_md.errors import TeacherError
from crack_md.processes import SPAWN, end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    start: Callable[[], None],
) -> Iterator[Result]:
    """Yield function(item) for every item, in order, computed by `workers` processes.

    Args:
        function: A module-level function.
        items: Read lazily, a few per worker ahead.
        workers: 1 computes in this process.
        start: Called once in every worker before its first item, to load a teacher.
    """
    if workers <= 1:
        start()
        yield from map(function, items)
        return
    remaining = iter(items)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=SPAWN,
        initializer=_start_worker,
        initargs=(start,),
    )
    try:
        pending: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(remaining, 4 * workers)
        )
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(remaining, 1))
    except BrokenProcessPool as error:
        raise TeacherError(
            "a worker process died, most often for lack of memory; repeat the command "
            "with fewer --workers, it continues where it stopped"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _start_worker(start: Callable[[], None]) -> None:
    # the parent ends the run; workers that die of Ctrl-C would print tracebacks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(1)  # workers share the cores among themselves
    start()


@contextmanager
def first_rank_first() -> Iterator[bool]:
    """Run the block in the first process, then in the others; yield which one it is.

    True for the first, and without several processes.
    """
    alone = not (distributed.is_available() and distributed.is_initialized())
    is_first = alone or distributed.get_rank() == 0
    if not is_first:
        distributed.barrier()
    try:
        yield is_first
    finally:  # after an error too: the others would wait for hours
        if is_first and not alone:
            distributed.barrier()
