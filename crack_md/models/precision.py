"""Large products in bfloat16 or TF32, everything else in the model's precision."""

import copy

import torch

from crack_md.models.force_field import ForceField
from crack_md.models.layers import FeedForward
from crack_md.models.so2 import SO2Convolution


def with_products_in(model: ForceField, dtype: torch.dtype) -> ForceField:
    """Return a copy of a model for inference whose largest products are in ``dtype``.

    These are the SO(2) convolutions and the networks on grids: nearly all operations.
    Rotations, radial weights, norms, attention weights and sums keep their precision:
    rounding those moved the energies of trained students twice as much.

    Args:
        model: Left as it is.
        dtype: `torch.bfloat16`, say.
    """
    low = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    for module in low.network.modules():
        if isinstance(module, SO2Convolution):
            module.fc_m0.to(dtype)
            module.so2_m_conv.to(dtype)
        elif isinstance(module, FeedForward) and module.kind == "grid":
            module.grid_mlp.to(dtype)
    low.products = "bfloat16"
    return low


def with_tf32_products(model: ForceField) -> ForceField:
    """Return the model for a GPU that rounds the factors of its products to TF32.

    Weights are shared with the model, which is left as it is.
    """
    rounded = copy.copy(model)
    rounded.products = "tf32"
    return rounded
