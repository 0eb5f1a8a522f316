"""TF32 without a GPU: products whose factors are rounded to 10 binary digits."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

FACTORS = {
    "aten::mm": (0, 1),
    "aten::bmm": (0, 1),
    "aten::addmm": (1, 2),
    "aten::baddbmm": (1, 2),
}
"""Places of the factors among the arguments."""
DROPPED = 13
"""Bits of a float32 that TF32 does not have."""


def tf32(x: Tensor) -> Tensor:
    """Return float32 numbers rounded to the nearest of TF32, ties to even."""
    bits = x.contiguous().view(torch.int32)
    half = (1 << (DROPPED - 1)) - 1 + ((bits >> DROPPED) & 1)
    return ((bits + half) & ~((1 << DROPPED) - 1)).view(torch.float32)


class Tf32Products(TorchDispatchMode):
    """Rounds the factors of all float32 products while it is entered, as a GPU may."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args = list(args)
        for place in FACTORS.get(func._schema.name, ()):
            if args[place].dtype == torch.float32:
                args[place] = tf32(args[place])
        return func(*args, **(kwargs or {}))
