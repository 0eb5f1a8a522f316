"""The progress bar of all commands: what, how far, since when, how long still."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

COUNTERS = {"items": MofNCompleteColumn, "percent": TaskProgressColumn}


def build_progress(
    counter: Literal["items", "percent"],
    *,
    console: Console | None = None,
    shows: bool = True,
    transient: bool = False,
) -> Progress:
    """Return a bar on stderr, which shows on terminals only.

    Args:
        counter: Count items, or show the percentage of a budget.
        console: Where lines above the bar are printed too.
        shows: False for no bar at all.
        transient: Wipe the bar when it is done.
    """
    console = console or Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        COUNTERS[counter](),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not (shows and console.is_terminal),
        transient=transient,
    )


@contextmanager
def show_progress(
    what: str, total: int | None, *, quiet: bool
) -> Iterator[Callable[..., None]]:
    """Yield the function to call with what is done; its first call shows the bar.

    A second argument of it, if any, is the new total. Input is checked before that,
    and an error then stands alone.
    """
    bar = build_progress("items", shows=not quiet)
    task = bar.add_task(what, total=total)

    def show(done: int, of: int | None = total) -> None:
        bar.start()
        bar.update(task, completed=done, total=of)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()
