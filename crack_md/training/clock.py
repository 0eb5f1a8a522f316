"""Where the time of a run goes: data, teacher, student, losses, backward and optimizer.

The hands move by laps: ``lap("loss")`` gives the time since the lap before to the
losses. A GPU only queues work, so there laps are taken in a few steps, in which each
waits for the device; on a CPU every step counts.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

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
        told = ", ".join(f"{name} {100 * share:.0f}%" for name, share in shares.items())
        return f"{self.structures_per_s:.3g} structures/s; of the time {told}"


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
