"""Equivariant layers on atoms: linear maps, activations, feed-forward."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from crack_md.models.grids import GridMap, SiLUOnce, grid_map, silu_once
from crack_md.models.so3 import degrees, order_major_index

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
