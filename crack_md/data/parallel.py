"""Several processes: a function over many items, and who of a run comes first."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import current_process
from typing import Any, TypeVar

import torch
from torch import distributed

from crack_md.errors import TeacherError
from crack_md.processes import SPAWN, end_with_parent

Tool = TypeVar("Tool")
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item, Tool], Result],
    items: Iterable[Item],
    *,
    workers: int,
    start: Callable[[], Tool],
) -> Iterator[Result]:
    """Yield function(item, tool) for every item, in order, by `workers` processes.

    Args:
        function: A module-level function.
        items: Read lazily, a few per worker ahead.
        workers: 1 computes in this process.
        start: Returns the tool, such as a teacher; called once in every worker.
    """
    if workers <= 1:
        tool = start()
        yield from (function(item, tool) for item in items)
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
            pool.submit(_apply, function, item)
            for item in islice(remaining, 4 * workers)
        )
        while pending:
            yield pending.popleft().result()
            pending.extend(
                pool.submit(_apply, function, item) for item in islice(remaining, 1)
            )
    except BrokenProcessPool as error:
        raise TeacherError(
            "a worker process died, most often for lack of memory; repeat the command "
            "with fewer --workers, it continues where it stopped"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _start_worker(start: Callable[[], object]) -> None:
    # the parent ends the run; workers that die of Ctrl-C would print tracebacks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(1)  # workers share the cores among themselves
    # what a worker has loaded belongs to the process, and to nothing that others import
    vars(current_process())["tool"] = start()


def _apply(function: Callable[[Item, Any], Result], item: Item) -> Result:
    return function(item, vars(current_process())["tool"])


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
