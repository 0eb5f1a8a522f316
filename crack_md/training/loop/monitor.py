"""Progress bar and stop signals of a run, and the time that each of its parts takes.

The parts are data, teacher, student, losses, backward pass and optimizer.
``lap("loss")`` adds the time since the lap before to the losses. A GPU only queues
work, so there laps are taken in a few steps, in which each waits for the device; on a
CPU every step counts.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, Literal, get_args

import torch
from rich.console import Console
from torch import nn

from crack_md.progress import build_progress

Part = Literal["data", "teacher", "chains", "student", "loss", "update"]
"""``chains`` is the student's dynamics between steps; ``update`` is the backward pass,
clipping, the optimizer and the moving average."""


@dataclass(frozen=True)
class Throughput:
    """How fast a run was, and the share of every part in the time of its steps."""

    structures_per_s: float
    share_data: float
    share_teacher: float
    share_chains: float
    share_student: float
    share_loss: float
    share_update: float

    def as_dict(self) -> dict[str, float]:
        """Return rounded numbers by name."""
        return {name: float(f"{value:.4g}") for name, value in asdict(self).items()}

    def __str__(self) -> str:
        """Return one line."""
        shares = {
            "teacher": self.share_teacher,
            **({"chains": self.share_chains} if self.share_chains else {}),
            "student": self.share_student,
            "loss": self.share_loss,
            "backward and optimizer": self.share_update,
            "data": self.share_data,
        }
        parts = ", ".join(
            f"{name} {100 * share:.0f}%" for name, share in shares.items()
        )
        return f"{self.structures_per_s:.3g} structures/s; of the time {parts}"


class Clock:
    """Shares the time of training steps among their parts.

    Args:
        device: Where the student runs.
        every: On a GPU, laps are taken in every so-manieth step.
    """

    def __init__(self, device: torch.device, *, every: int = 20) -> None:
        self.last_step_s = 0.0
        self._waits = device.type == "cuda"
        self._every = every if self._waits else 1
        self._laps = dict.fromkeys(get_args(Part), 0.0)
        self._steps_s, self._n_structures = 0.0, 0
        self._runs = False
        self._started = self._last = 0.0

    def follow(self, student: nn.Module) -> None:
        """Take a lap whenever the student begins and ends within a step."""
        student.register_forward_pre_hook(lambda *_: self.lap("loss"))
        student.register_forward_hook(lambda *_: self.lap("student"))

    def start(self, step: int) -> None:
        """Begin the step with this number."""
        self._runs = step % self._every == self._every - 1  # not in the first, it warms
        self._started = self._last = self._now()

    @contextmanager
    def sole(self, part: Part) -> Iterator[None]:
        """Give all time inside to one part, whatever asks the student there."""
        runs, self._runs = self._runs, False
        yield
        self._runs = runs
        self.lap(part)

    def lap(self, part: Part) -> None:
        """Give the time since the lap before to a part of the step."""
        if self._runs:
            now = self._now()
            self._laps[part] += now - self._last
            self._last = now

    def stop(self, n_structures: int) -> None:
        """End a step of so many structures, over all processes."""
        now = self._now()
        self._runs = False
        self.last_step_s = now - self._started
        self._steps_s += self.last_step_s
        self._n_structures += n_structures

    def throughput(self) -> Throughput | None:
        """Return how fast the steps were, None before the first."""
        total = sum(self._laps.values())
        if not self._n_structures:
            return None
        shares = {
            f"share_{part}": seconds / total if total else 0.0
            for part, seconds in self._laps.items()
        }
        return Throughput(self._n_structures / self._steps_s, **shares)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run adds to."""
        return {
            "laps": self._laps,
            "steps_s": self._steps_s,
            "n_structures": self._n_structures,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the time of an earlier start; older checkpoints have none."""
        self._laps |= state.get("laps", {})
        self._steps_s += state.get("steps_s", 0.0)
        self._n_structures += state.get("n_structures", 0)

    def _now(self) -> float:
        if self._waits and self._runs:
            torch.cuda.synchronize()
        return time.perf_counter()


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class RunMonitor:
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
