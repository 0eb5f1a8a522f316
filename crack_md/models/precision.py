"""Large products in bfloat16 or TF32, everything else in the model's precision."""

import copy

import torch

from crack_md.models.force_field import ForceField


def with_products_in(model: ForceField, dtype: torch.dtype) -> ForceField:
    """Return a copy of a model for inference whose largest products are in ``dtype``.

    Args:
        model: Left as it is.
        dtype: `torch.bfloat16`, say.

    Raises:
        ConfigError: Its architecture has no products that are worth it.
    """
    low = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    low.network.lower_products(dtype)
    low.products = "bfloat16"
    return low


def with_tf32_products(model: ForceField) -> ForceField:
    """Return the model for a GPU that rounds the factors of its products to TF32.

    Weights are shared with the model, which is left as it is.
    """
    rounded = copy.copy(model)
    rounded.products = "tf32"
    return rounded
