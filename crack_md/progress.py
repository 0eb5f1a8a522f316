"""How far a command is: one event for all workflows, one bar for all commands.

On a terminal a bar shows what is done, since when, and how long still. Without one, as
in the log of a Slurm job, the same goes out as a plain line once a minute.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

COUNTERS = {"items": MofNCompleteColumn, "percent": TaskProgressColumn}
LINE_EVERY_S = 60.0
"""Between two plain lines."""
SHOWN_LETTERS = 32
"""Of the description in the bar."""


class ProgressEvent(NamedTuple):
    """One item of a workflow is done: a relaxation, a step, a structure."""

    done: int
    total: int
    what: str = ""
    """What it is about: ``Pt(111) O fcc``, the name of a structure, ``305 K``."""
    status: str = ""
    """What became of the item; empty where nothing can go wrong."""
    reused: bool = False
    """Whether it was there from an earlier run."""


Report = Callable[[ProgressEvent], None]
"""Called by workflows after every item."""


def build_progress(
    counter: Literal["items", "percent"],
    *,
    console: Console | None = None,
    shows: bool = True,
    transient: bool = False,
    line_every_s: float = LINE_EVERY_S,
) -> Progress:
    """Return a bar on stderr; without a terminal it writes plain lines instead.

    Args:
        counter: Count items, or show the percentage of a budget.
        console: Where lines above the bar are printed too.
        shows: False for neither bar nor lines.
        transient: Wipe the bar when it is done.
        line_every_s: Seconds between two plain lines.
    """
    # not Console.is_terminal alone: FORCE_COLOR makes it true for the log of a job too
    draws = sys.stderr.isatty() if console is None else console.is_terminal
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        COUNTERS[counter](),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    if shows and not draws:
        return _PlainLines(*columns, console=console, line_every_s=line_every_s)
    return Progress(*columns, console=console, disable=not shows, transient=transient)


class _PlainLines(Progress):
    """A bar that is not drawn; a thread prints where it stands at even intervals."""

    def __init__(
        self, *columns: ProgressColumn, console: Console, line_every_s: float
    ) -> None:
        super().__init__(*columns, console=console, disable=True)
        self._line_every_s = line_every_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; a second call changes nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._print_lines, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()

    def _print_lines(self) -> None:
        while not self._ended.wait(self._line_every_s):
            for task in self.tasks:
                print(describe(task), file=self.console.file, flush=True)


def describe(task: Task) -> str:
    """Return where a bar stands as one plain line: ``slabs: 3/8 after 2 min``."""
    if task.total is None:
        done = f"{task.completed:g}" if task.completed else "not done"
    elif task.total <= 1.0:
        done = f"{task.percentage:.0f}%"
    else:
        done = f"{task.completed:g}/{task.total:g}"
    line = f"{task.description}: {done} after {_duration(task.elapsed or 0.0)}"
    left = task.time_remaining
    return line if left is None else f"{line}, about {_duration(left)} left"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"


@contextmanager
def show_progress(
    what: str,
    total: int | None,
    *,
    quiet: bool,
    line_every_s: float = LINE_EVERY_S,
) -> Iterator[Callable[..., None]]:
    """Yield the function to call with what is done; its first call shows the bar.

    A second argument of it, if any, is the new total. Input is checked before that,
    and an error then stands alone. Plain lines begin at once: what comes before the
    first item, such as loading a teacher, may take minutes.
    """
    bar = build_progress("items", shows=not quiet, line_every_s=line_every_s)
    task = bar.add_task(what, total=total)
    if isinstance(bar, _PlainLines):
        bar.start()

    def show(done: int, of: int | None = total) -> None:
        bar.start()
        bar.update(task, completed=done, total=of)

    try:
        yield show
    finally:
        bar.stop()


@contextmanager
def show_events() -> Iterator[Report]:
    """Yield the function that workflows report to; it moves a bar on stderr.

    What an event is about becomes the description of the bar; where the count starts
    again, as in the next part of a workflow, so does the clock.
    """
    with build_progress("items", transient=True) as bar:
        task = bar.add_task("preparing", total=None)
        last = 0

        def show(event: ProgressEvent) -> None:
            nonlocal last
            if event.done < last:
                bar.reset(task)
            last = event.done
            bar.update(
                task,
                completed=event.done,
                total=event.total,
                description=event.what[:SHOWN_LETTERS],
            )

        yield show
