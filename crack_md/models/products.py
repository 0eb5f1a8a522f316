"""In which precision the products of float32 numbers are computed, for a while."""

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
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
