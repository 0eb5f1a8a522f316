"""Optimizers, the learning-rate schedule and the moving average of weights.

Muon: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks"
(2024), https://kellerjordan.github.io/posts/muon; the size of its steps after J. Liu et
al., "Muon is scalable for LLM training" (arXiv:2502.16982), so that learning rates are
those of Adam. PyTorch's own takes single matrices only; the weights here are stacks of
them, one for each degree.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""a, b, c of X → a X + b (X Xᵀ) X + c (X Xᵀ)² X, which takes singular values from
(0, 1] to 0.7 … 1.2 in five steps (Jordan et al.)."""
STEP_RMS = 0.2
"""Root mean square of a step in units of the learning rate: about that of Adam."""


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


def orthogonalize(
    matrices: Float[Tensor, "... row column"], steps: int = 5
) -> Float[Tensor, "... row column"]:
    """Return U Vᵀ of U S Vᵀ, roughly: singular values are between 0.7 and 1.2."""
    a, b, c = NEWTON_SCHULZ
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-12)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.AdamW):
    """Orthogonal steps in groups that say so, AdamW's in the others.

    Args:
        groups: Of parameters, each with "weight_decay" and "is_orthogonal".
        lr: Learning rate of both kinds.
        momentum: Of orthogonal steps, with Nesterov's correction.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, momentum: float = 0.95
    ) -> None:
        super().__init__(groups, lr=lr, foreach=True)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients at hand."""
        assert closure is None, "steps are taken once for each gradient"
        done: dict[Tensor, Tensor] = {}
        for group in self.param_groups:
            if not group["is_orthogonal"]:
                continue
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step_orthogonal(group, weight, weight.grad)
                    # without a gradient AdamW passes over it
                    done[weight], weight.grad = weight.grad, None
        super().step()
        for weight, gradient in done.items():
            weight.grad = gradient

    def _step_orthogonal(
        self, group: dict[str, Any], weight: Tensor, gradient: Tensor
    ) -> None:
        state = self.state[weight]
        if not state:
            # AdamW asks every state that it loads for its step
            state |= {"step": torch.zeros(()), "average": torch.zeros_like(weight)}
        average = state["average"].lerp_(gradient, 1 - self.momentum)
        direction = torch.lerp(gradient, average, self.momentum)
        size = STEP_RMS * max(weight.shape[-2:]) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(orthogonalize(direction), alpha=-group["lr"] * size)


def muon(module: nn.Module, *, lr: float, weight_decay: float, n_elements: int) -> Muon:
    """Return Muon for the matrices of layers, Adam for tables of elements and vectors.

    A step sees few rows of a table with a row for each element, and a matrix with one
    row or column has one singular value: neither is what orthogonal steps are for.

    Args:
        module: Whose trained parameters to move.
        lr: Learning rate.
        weight_decay: Of all but biases and the weights of norms.
        n_elements: Rows of tables of elements.
    """
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            decays = is_decayed(name, weight)
            orthogonal = (
                decays and min(weight.shape[-2:]) > 1 and len(weight) != n_elements
            )
            groups.setdefault((orthogonal, decays), []).append(weight)
    return Muon(
        [
            {
                "params": weights,
                "is_orthogonal": orthogonal,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (orthogonal, decays), weights in groups.items()
        ],
        lr=lr,
    )


def is_decayed(name: str, weight: Tensor) -> bool:
    """Return whether a parameter is one that weight decay is for: a matrix."""
    leaf = name.rsplit(".", maxsplit=1)[-1]
    return weight.ndim > 1 and "bias" not in leaf and not leaf.startswith("affine")


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
