"""Layers that architectures share: radial bases, norms, linear maps, activations."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from crack_md.models.precision import ExactConstants
from crack_md.models.so3 import (
    GridMap,
    SiLUOnce,
    degrees,
    grid_map,
    order_major_index,
    silu_once,
)

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


class GaussianBasis(nn.Module):
    """Gaussians on equidistant centers, twice as wide as their distance."""

    offset: Tensor

    def __init__(self, cutoff: float, n_basis: int) -> None:
        super().__init__()
        offset = torch.linspace(0.0, cutoff, n_basis, device="cpu")
        self.coefficient = -0.5 / (2.0 * (offset[1] - offset[0]).item()) ** 2
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, distance: Float[Tensor, " edge"]) -> Float[Tensor, "edge basis"]:
        """Return the values of all Gaussians at every distance."""
        gap = distance.unsqueeze(-1) - self.offset
        return torch.exp(self.coefficient * gap.square())


class BesselBasis(ExactConstants):
    """Bessel functions under a smooth envelope, of mean square near 1 where atoms are.

    √2 sin(nπ r/c) · c/r · env(r), n = 1, 2 … (Gasteiger et al. 2020, eq. 7,
    with another norm).
    """

    frequencies: Tensor

    def __init__(self, cutoff: float, n_basis: int, power: int) -> None:
        super().__init__()
        self.cutoff, self.power = cutoff, power
        steps = torch.arange(1, n_basis + 1, dtype=torch.float64, device="cpu")
        self.keep("frequencies", steps * math.pi / cutoff)

    def forward(self, distance: Float[Tensor, " edge"]) -> Float[Tensor, "edge basis"]:
        """Return all functions at every distance, 0 from the cutoff on."""
        envelope = polynomial_envelope(distance, self.cutoff, self.power)
        scale = envelope * (math.sqrt(2) * self.cutoff) / distance
        waves = torch.sin(distance.unsqueeze(-1) * self.frequencies)
        return waves * scale.unsqueeze(-1)


def polynomial_envelope(
    distance: Float[Tensor, "*edge"], cutoff: float, power: int
) -> Float[Tensor, "*edge"]:
    """Return 1 at r = 0, and 0 with two vanishing derivatives at the cutoff.

    u(x) = 1 − (p+1)(p+2)/2 xᵖ + p(p+2) xᵖ⁺¹ − p(p+1)/2 xᵖ⁺², x = r / cutoff
    (Gasteiger, Groß, Günnemann 2020, eq. 8).
    """
    x = distance / cutoff
    p = power
    polynomial = (
        1
        - (p + 1) * (p + 2) / 2 * x**p
        + p * (p + 2) * x ** (p + 1)
        - p * (p + 1) / 2 * x ** (p + 2)
    )
    return torch.where(x < 1, polynomial, torch.zeros_like(polynomial))


Activation = Literal["s2", "gate"]
FeedForwardKind = Literal["grid", "s2", "gate"]


def lowered(x: Float[Tensor, "*shape"], layer: nn.Linear) -> Float[Tensor, "*shape"]:
    """Return the input in the precision of the weights where that is the lower one.

    Only inference lowers weights (`precision`); in training autocast does.
    """
    dtype = layer.weight.dtype
    return x.to(dtype) if dtype.itemsize < x.dtype.itemsize else x


def raised(
    y: Float[Tensor, "*shape"], x: Float[Tensor, "..."]
) -> Float[Tensor, "*shape"]:
    """Return an output in the precision of the input, unless autocast lowered it."""
    return y if torch.is_autocast_enabled(y.device.type) else y.to(x.dtype)


class SO3Linear(nn.Module):
    """One linear map of the channels for each degree, with a bias on l = 0."""

    def __init__(self, channels_in: int, channels_out: int, lmax: int) -> None:
        super().__init__()
        self.lmax = lmax
        self.weight = nn.Parameter(torch.empty(lmax + 1, channels_out, channels_in))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        bound = channels_in**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(
        self, x: Float[Tensor, "atom coefficient channels_in"]
    ) -> Float[Tensor, "atom coefficient channels_out"]:
        """Return the mapped coefficients, degree order."""
        sizes = [2 * degree + 1 for degree in range(self.lmax + 1)]
        parts = [
            functional.linear(part, weight)
            for part, weight in zip(x.split(sizes, dim=1), self.weight, strict=True)
        ]
        return torch.cat([parts[0] + self.bias, *parts[1:]], dim=1)

    def invariants(
        self, x: Float[Tensor, "atom channels_in"]
    ) -> Float[Tensor, "atom channels_out"]:
        """Return the l = 0 output alone, from the l = 0 input."""
        return functional.linear(x, self.weight[0], self.bias)


class S2Activation(nn.Module):
    """SiLU on a grid of the sphere for l > 0, on separate scalars for l = 0."""

    def __init__(self, lmax: int, mmax: int | None, resolution: int) -> None:
        super().__init__()
        self.grid = grid_map(lmax, mmax, resolution)

    def forward(
        self,
        x: Float[Tensor, "row coefficient channel"],
        scalars: Float[Tensor, "row channel"],
    ) -> Float[Tensor, "row coefficient channel"]:
        """Return the activated coefficients."""
        rest = self.grid(x, silu_once)[:, 1:]
        return torch.cat([functional.silu(scalars).unsqueeze(1), rest], dim=1)


class GateActivation(nn.Module):
    """SiLU on l = 0; l > 0 times the sigmoid of one scalar per degree: equivariant.

    Args:
        lmax: highest degree.
        mmax: highest order of order-major coefficients; None for degree order.
        channels: channels of the coefficients.
    """

    degree: Tensor

    def __init__(self, lmax: int, mmax: int | None, channels: int) -> None:
        super().__init__()
        self.lmax = lmax
        self.channels = channels
        degree = torch.tensor(degrees(lmax))
        if mmax is not None:
            degree = degree[order_major_index(lmax, mmax)]
        self.register_buffer("degree", degree[1:] - 1, persistent=False)

    def forward(
        self,
        x: Float[Tensor, "row coefficient channel"],
        scalars: Float[Tensor, "row gate"],
    ) -> Float[Tensor, "row coefficient channel"]:
        """Return the activated coefficients."""
        gates = torch.sigmoid(scalars).unflatten(-1, (self.lmax, self.channels))
        rest = x[:, 1:] * gates[:, self.degree]
        return torch.cat([functional.silu(x[:, :1]), rest], dim=1)


class FeedForward(nn.Module):
    """Two equivariant linear maps with a non-linearity between them.

    Args:
        channels: channels of the input.
        hidden: channels between the maps.
        channels_out: channels of the output.
        lmax: highest degree.
        kind: "grid" (an MLP at every point of a grid on the sphere), "s2" (SiLU there)
            or "gate" (exactly equivariant).
        resolution: points of the grid in each angle.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        channels_out: int,
        lmax: int,
        kind: FeedForwardKind,
        resolution: int,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.so3_linear_1 = SO3Linear(channels, hidden, lmax)
        self.so3_linear_2 = SO3Linear(hidden, channels_out, lmax)
        if kind == "grid":
            self.scalar_mlp = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU())
            self.grid_mlp = nn.Sequential(
                nn.Linear(hidden, hidden, bias=False),
                SiLUOnce(),
                nn.Linear(hidden, hidden, bias=False),
                SiLUOnce(),
                nn.Linear(hidden, hidden, bias=False),
            )
            self.grid = GridMap(lmax, None, resolution)
        elif kind == "s2":
            self.gating_linear = nn.Linear(channels, hidden)
            self.s2_act = S2Activation(lmax, None, resolution)
        else:
            self.gating_linear = nn.Linear(channels, lmax * hidden)
            self.gate_act = GateActivation(lmax, None, hidden)

    def forward(
        self, x: Float[Tensor, "atom coefficient channel"]
    ) -> Float[Tensor, "atom coefficient channels_out"]:
        """Return all coefficients of the output."""
        hidden = self.so3_linear_1(x)
        if self.kind == "grid":
            rest = self.grid(hidden, self._on_grid)[:, 1:]
            hidden = torch.cat([self.scalar_mlp(x[:, :1]), rest], dim=1)
        elif self.kind == "s2":
            hidden = self.s2_act(hidden, self.gating_linear(x[:, 0]))
        else:
            hidden = self.gate_act(hidden, self.gating_linear(x[:, 0]))
        return self.so3_linear_2(hidden)

    def _on_grid(
        self, values: Float[Tensor, "atom point channel"]
    ) -> Float[Tensor, "atom point channel"]:
        first = self.grid_mlp[0]
        assert isinstance(first, nn.Linear)
        return raised(self.grid_mlp(lowered(values, first)), values)

    def invariants(
        self, x: Float[Tensor, "atom coefficient channel"]
    ) -> Float[Tensor, "atom channels_out"]:
        """Return the l = 0 output alone; it depends on the l = 0 input alone."""
        scalars = x[:, 0]
        if self.kind == "grid":
            hidden = self.scalar_mlp(scalars)
        elif self.kind == "s2":
            hidden = functional.silu(self.gating_linear(scalars))
        else:
            hidden = functional.silu(self.so3_linear_1.invariants(scalars))
        return self.so3_linear_2.invariants(hidden)


def linear(n_in: int, n_out: int) -> nn.Linear:
    """Return a linear map without bias that keeps the variance."""
    layer = nn.Linear(n_in, n_out, bias=False)
    nn.init.normal_(layer.weight, std=n_in**-0.5)
    return layer


def element_table(num_elements: int, channels: int) -> nn.Parameter:
    """Return factors by atomic number, 1 at the start."""
    return nn.Parameter(torch.ones(num_elements, channels))
