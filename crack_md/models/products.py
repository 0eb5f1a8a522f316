"""In which precision the products of float32 numbers are computed, for a while."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

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
