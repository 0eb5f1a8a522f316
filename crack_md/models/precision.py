"""Precision: constants that stay exact, products in TF32 or bfloat16."""

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

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


Products = Literal["exact", "tf32", "bfloat16"]
"""How factors of the large products are rounded: not, to 10 bits, to 7 bits."""


@contextmanager
def tf32_products(wanted: bool) -> Iterator[None]:
    """Let a GPU round the factors of float32 products to TF32 inside the block.

    The setting is PyTorch's, for the whole process, and is put back behind the block.

    Args:
        wanted: False leaves everything as it is.
    """
    if not wanted:
        yield
        return
    _inside.enter()
    try:
        yield
    finally:
        _inside.leave()


class _Inside:
    """Counts who is inside: the first sets, and the last puts back, in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before = ""

    def enter(self) -> None:
        with self._lock:
            if not self._count:
                self._before = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision("high")
            self._count += 1

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                torch.set_float32_matmul_precision(self._before)


_inside = _Inside()


SIZE = 384
"""Rows and columns of the factors that are timed: 0.1 GFLOP."""
REPEATS = 5
SLOWEST = 1.5
"""Times the float32 product, beyond which a processor has no bfloat16 of its own."""


def use_bfloat16(device: torch.device) -> bool:
    """Return whether products on a device may be in bfloat16, and warn if they may not.

    The warning names how many times slower they would be; it comes once per process.
    """
    factor = slowdown(device.type)
    if factor <= SLOWEST:
        return True
    warn_once(device.type, factor)
    return False


@cache
def slowdown(device_type: str) -> float:
    """Return the time of a product in bfloat16 in units of that in float32.

    Both are taken in turns, and the fastest of each counts, so that the load of a
    machine hardly matters.
    """
    times = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    factors = torch.ones(SIZE, SIZE, device=device_type)
    for _ in range(REPEATS + 1):  # the first of each only warms up
        for dtype in times:
            factor = factors.to(dtype)
            _wait(device_type)
            start = time.perf_counter()
            factor @ factor
            _wait(device_type)
            times[dtype] = min(times[dtype], time.perf_counter() - start)
    return times[torch.bfloat16] / times[torch.float32]


def _wait(device_type: str) -> None:
    if device_type == "cuda":
        torch.cuda.synchronize()


@cache
def warn_once(device_type: str, factor: float) -> None:
    """Say, once for a kind of device, that float32 is used in place of bfloat16."""
    warnings.warn(
        f"products in bfloat16 take {factor:.1f} times as long as in float32 on this "
        f"{'GPU' if device_type == 'cuda' else 'CPU'}, which has no such format; "
        "float32 is used instead",
        stacklevel=3,
    )
