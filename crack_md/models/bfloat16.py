"""Whether bfloat16 is worth it: where a processor has no such format, it is slower."""

import time
import warnings
from functools import cache

import torch

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
    _warn(device.type, factor)
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
def _warn(device_type: str, factor: float) -> None:
    warnings.warn(
        f"products in bfloat16 take {factor:.1f} times as long as in float32 on this "
        f"{'GPU' if device_type == 'cuda' else 'CPU'}, which has no such format; "
        "float32 is used instead",
        stacklevel=3,
    )
