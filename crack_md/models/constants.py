"""Modules whose constants stay exact, whatever precision their weights go through."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class ExactConstants(nn.Module):
    """A module with constants that are kept in float64 beside their working copy.

    As buffers they would stay rounded once a model has gone through float32. They are
    placed beside the weights when these move: in a call the host would wait for a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exact: dict[str, Tensor] = {}

    def keep(self, name: str, values: Tensor) -> None:
        """Make ``self.name`` the values (float64), in the precision of the weights."""
        self._exact[name] = values.double()
        setattr(self, name, values.to(torch.empty(0)))

    def _apply(
        self, fn: Callable[..., Tensor], recurse: bool = True
    ) -> "ExactConstants":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, values in self._exact.items():
            setattr(self, name, values.to(fn(getattr(self, name))))
        return self
