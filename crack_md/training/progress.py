"""Watching a run: a progress bar with ETA, and a polite end on Ctrl-C or SIGTERM."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from crack_md.progress import build_progress

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Watch:
    """What the user sees of a run, and how the user ends it."""

    def __init__(self, *, shows: bool = True, console: Console | None = None) -> None:
        self.stop_requested: str | None = None
        """Name of the signal that asked the run to stop."""
        self._console = console or Console(stderr=True, quiet=not shows)
        self._progress = build_progress("percent", console=self._console, shows=shows)
        self._task = self._progress.add_task("training", total=1.0)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Show the bar, and turn the first stop signal into a request.

        A second signal has its usual effect, so a run that hangs can still be killed.
        """
        handlers = {}
        if threading.current_thread() is threading.main_thread():
            handlers = {s: signal.signal(s, self._on_signal) for s in STOP_SIGNALS}
        try:
            with self._progress:
                yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def update(self, fraction: float, description: str) -> None:
        """Move the bar to this fraction of the budget."""
        self._progress.update(self._task, completed=fraction, description=description)

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)
