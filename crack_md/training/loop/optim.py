"""Optimizers, the learning-rate schedule and the moving average of weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from crack_md.training.loop.muon import is_decayed, muon


def adamw(
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.AdamW:
    """Return AdamW that decays matrices only.

    Decaying biases and the weights of norms would pull the function towards zero, not
    its complexity. The norms of EquiformerV2 have one weight per degree and channel, so
    they go by name (``affine_weight``), not by dimension.
    """
    trained = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    decays = [p for name, p in trained if is_decayed(name, p)]
    rest = [p for name, p in trained if not is_decayed(name, p)]
    groups = [
        {"params": decays, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    # on a CPU the default goes tensor by tensor: the same numbers, a third slower
    return torch.optim.AdamW(groups, lr=lr, betas=betas, foreach=True)


def build_optimizer(
    name: Literal["adamw", "muon"],
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    n_elements: int,
) -> torch.optim.Optimizer:
    """Return what moves the trained parameters of a module; see `adamw` and `muon`."""
    if name == "adamw":
        return adamw(module, lr=lr, weight_decay=weight_decay)
    return muon(module, lr=lr, weight_decay=weight_decay, n_elements=n_elements)


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up over steps, then half a cosine over the budget of the run.

    The budget is a number of steps, a time, or both; whichever is further along counts,
    so a run that ends on time has also decayed to its end.
    """

    lr: float
    warmup_steps: int
    lr_end_factor: float
    """Learning rate at the end of the budget, as a fraction of the peak."""
    max_steps: int | None
    max_seconds: float | None

    def progress(self, step: int, elapsed_s: float) -> float:
        """Return how much of the budget is used, 1.0 when it is spent."""
        parts = [0.0]
        if self.max_steps is not None:
            parts.append(step / max(self.max_steps, 1))
        if self.max_seconds is not None:
            parts.append(elapsed_s / max(self.max_seconds, 1e-9))
        return min(max(parts), 1.0)

    def learning_rate(self, step: int, elapsed_s: float) -> float:
        """Return the rate for the step with this number, counted from zero."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress(step, elapsed_s)))
        end = self.lr_end_factor
        return self.lr * warm * (end + (1 - end) * cosine)


class MovingAverage:
    """Exponential moving average of the trained weights.

    The decay grows from 0.1 to its value as (1 + n)/(10 + n), so that early averages do
    not remember the random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self._source = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._average = {n: p.detach().clone() for n, p in self._source.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights."""
        self.n_updates += 1
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        averages = list(self._average.values())
        torch._foreach_lerp_(averages, list(self._source.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the module hold the averaged weights inside the ``with`` block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self._source.items():
            held = parameter.detach().clone()
            parameter.copy_(self._average[name])
            self._average[name].copy_(held)

    def state_dict(self) -> dict[str, object]:
        """Return the averages and the number of updates."""
        return {"n_updates": self.n_updates, "average": self._average}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take over averages in place."""
        average = state["average"]
        assert isinstance(average, dict)
        self.n_updates = int(state["n_updates"])  # type: ignore[call-overload]
        for name, held in self._average.items():
            held.copy_(average[name])
