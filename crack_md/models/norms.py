"""Normalisation of channels, and of SO(3) coefficients."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.models.so3 import degrees

Norm = Literal["layer_norm_sh", "rms_norm_sh"]


class LayerNorm(nn.LayerNorm):
    """A layer norm whose derivatives are right to any order, where that is asked for.

    The fused one of PyTorch is quick, and silently wrong from the third derivative on
    (pytorch/pytorch issue 175754): the one that training on rows of a Hessian takes.
    """

    any_order = False

    def forward(
        self, x: Float[Tensor, "*row channel"]
    ) -> Float[Tensor, "*row channel"]:
        """Return the rows shifted and scaled to mean 0 and variance 1, then affine."""
        if not self.any_order:
            return super().forward(x)
        x = x.to(self.weight.dtype)  # bfloat16 has no digits left for three derivatives
        x = x - x.mean(dim=-1, keepdim=True)
        variance = x.square().mean(dim=-1, keepdim=True)
        return x * torch.rsqrt(variance + self.eps) * self.weight + self.bias


def set_any_order(module: nn.Module, any_order: bool) -> None:
    """Make the layer norms inside a module right to any order, or quick again."""
    for part in module.modules():
        if isinstance(part, LayerNorm):
            part.any_order = any_order


class LayerNormSH(nn.Module):
    """Layer norm of l = 0; l > 0 divided by their common, degree-balanced RMS."""

    degree: Tensor
    balance: Tensor

    def __init__(self, lmax: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.norm_l0 = LayerNorm(channels, eps=eps)
        self.affine_weight = nn.Parameter(torch.ones(lmax, channels))
        degree = torch.tensor(degrees(lmax)[1:])
        balance = 1 / (2 * degree + 1) / lmax
        self.register_buffer("degree", degree - 1, persistent=False)
        self.register_buffer("balance", balance.unsqueeze(-1), persistent=False)

    def forward(
        self, x: Float[Tensor, "atom coefficient channel"]
    ) -> Float[Tensor, "atom coefficient channel"]:
        """Return normalised features, always computed in the precision of weights."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.affine_weight.dtype)
            scalars, rest = x[:, :1], x[:, 1:]
            power = (rest.square() * self.balance).sum(dim=1, keepdim=True)
            inverse = torch.rsqrt(power.mean(dim=-1, keepdim=True) + self.eps)
            rest = rest * (inverse * self.affine_weight[self.degree])
            return torch.cat([self.norm_l0(scalars), rest], dim=1)


class RMSNormSH(nn.Module):
    """All degrees divided by their common, degree-balanced RMS; l = 0 centered."""

    degree: Tensor
    balance: Tensor

    def __init__(self, lmax: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.affine_weight = nn.Parameter(torch.ones(lmax + 1, channels))
        self.affine_bias = nn.Parameter(torch.zeros(channels))
        degree = torch.tensor(degrees(lmax))
        balance = 1 / (2 * degree + 1) / (lmax + 1)
        self.register_buffer("degree", degree, persistent=False)
        self.register_buffer("balance", balance.unsqueeze(-1), persistent=False)

    def forward(
        self, x: Float[Tensor, "atom coefficient channel"]
    ) -> Float[Tensor, "atom coefficient channel"]:
        """Return normalised features, always computed in the precision of weights."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.affine_weight.dtype)
            scalars = x[:, :1] - x[:, :1].mean(dim=-1, keepdim=True)
            x = torch.cat([scalars, x[:, 1:]], dim=1)
            power = (x.square() * self.balance).sum(dim=1, keepdim=True)
            inverse = torch.rsqrt(power.mean(dim=-1, keepdim=True) + self.eps)
            x = x * (inverse * self.affine_weight[self.degree])
            return torch.cat([x[:, :1] + self.affine_bias, x[:, 1:]], dim=1)


NORMS: dict[str, type[LayerNormSH] | type[RMSNormSH]] = {
    "layer_norm_sh": LayerNormSH,
    "rms_norm_sh": RMSNormSH,
}
