"""SO(2) convolutions: linear maps in the frame of an edge, one GEMM for each order.

Turning the frame about its edge by φ multiplies x₊ + i x₋ by exp(imφ), and any complex
map commutes with that. A mirror that holds the edge takes x₋ to −x₋, and only the real
part of a map commutes with that, too: equivariance under O(2) halves the weights.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.models.layers import lowered, raised
from crack_md.models.radial import RadialFunction


class OrderConvolution(nn.Module):
    """Complex linear map of the coefficients of orders +m and −m.

    Args:
        n_in: coefficients of each sign.
        n_out: likewise.
        reflections: leave out the imaginary part, so that mirror images stay such.
    """

    def __init__(self, n_in: int, n_out: int, *, reflections: bool = False) -> None:
        super().__init__()
        self.reflections = reflections
        self.fc = nn.Linear(n_in, n_out if reflections else 2 * n_out, bias=False)

    def forward(self, x: Float[Tensor, "edge 2 n_in"]) -> Float[Tensor, "edge 2 n_out"]:
        """Return (Wᵣ + i Wᵢ)(x₊ + i x₋), real part first."""
        if self.reflections:
            return self.fc(lowered(x, self.fc))
        return _complex(*self.fc(lowered(x, self.fc)).chunk(2, dim=-1))

    def lowest(
        self, x: Float[Tensor, "edge 2 n_in"], n_channels: int
    ) -> Float[Tensor, "edge 2 n_channels"]:
        """Return the lowest degree alone, whose channels come first."""
        if self.reflections:
            weight = self.fc.weight[:n_channels]
            return nn.functional.linear(lowered(x, self.fc), weight)
        real, imaginary = self.fc.weight.chunk(2)
        weight = torch.cat([real[:n_channels], imaginary[:n_channels]])
        out = nn.functional.linear(lowered(x.contiguous(), self.fc), weight)
        return _complex(*out.chunk(2, dim=-1))


def _complex(
    real: Float[Tensor, "edge 2 n"], imaginary: Float[Tensor, "edge 2 n"]
) -> Float[Tensor, "edge 2 n"]:
    plus = real[:, 0] - imaginary[:, 1]
    minus = real[:, 1] + imaginary[:, 0]
    return torch.stack([plus, minus], dim=1)


class SO2Convolution(nn.Module):
    """Map order-major edge coefficients to others, orders never mixed.

    Args:
        lmax: highest degree.
        mmax: highest order.
        channels_in: channels of the input.
        channels_out: channels of the output.
        n_extra: further invariant outputs taken from order 0.
        radial: sizes (basis, edge channels) of the radial network that scales the
            input, or None for no scaling.
        reflections: commute with mirrors that hold the edge, not with turns alone.
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels_in: int,
        channels_out: int,
        *,
        n_extra: int = 0,
        radial: tuple[int, int] | None = None,
        reflections: bool = False,
    ) -> None:
        super().__init__()
        self.mmax = mmax
        self.n_extra = n_extra
        self.channels_out = channels_out
        self.widths = [(lmax + 1 - m) * channels_in for m in range(mmax + 1)]
        n_out = [(lmax + 1 - m) * channels_out for m in range(mmax + 1)]
        self.fc_m0 = nn.Linear(self.widths[0], n_out[0] + n_extra)
        self.so2_m_conv = nn.ModuleList(
            OrderConvolution(self.widths[m], n_out[m], reflections=reflections)
            for m in range(1, mmax + 1)
        )
        self.rad_func = RadialFunction(*radial, sum(self.widths)) if radial else None

    def forward(
        self,
        x: Float[Tensor, "edge reduced channels_in"],
        weights: Float[Tensor, "edge weight"] | None = None,
    ) -> tuple[Float[Tensor, "edge reduced channels_out"], Float[Tensor, "edge extra"]]:
        """Return the coefficients and the extra invariants."""
        edges = x.shape[0]
        flat = x.flatten(1)
        parts = flat.split(
            [self.widths[0], *(2 * width for width in self.widths[1:])], dim=1
        )
        scales = weights.split(self.widths, dim=1) if weights is not None else None
        zero = parts[0] if scales is None else parts[0] * scales[0]
        extra, zero = self.fc_m0(lowered(zero, self.fc_m0)).split(
            [self.n_extra, self.fc_m0.out_features - self.n_extra], dim=1
        )
        outputs = [zero]
        for m, convolution in enumerate(self.so2_m_conv, start=1):
            pair = parts[m].view(edges, 2, self.widths[m])
            if scales is not None:
                pair = pair * scales[m].unsqueeze(1)
            # contiguous rows: strided ones end in one small product for each edge
            outputs.append(convolution(pair.contiguous()).flatten(1))
        out = torch.cat(outputs, dim=1).unflatten(1, (-1, self.channels_out))
        return raised(out, x), raised(extra, x)

    def vectors(
        self, x: Float[Tensor, "edge reduced channels_in"]
    ) -> Float[Tensor, "edge 3 channels_out"]:
        """Return the l = 1 output alone, orders 0, +1 and −1, without radial weights.

        It depends on the orders 0 and ±1 of the input; the rest may be missing.
        """
        n = self.channels_out
        zero, pair = x.flatten(1)[:, : self.widths[0] + 2 * self.widths[1]].split(
            [self.widths[0], 2 * self.widths[1]], dim=1
        )
        start = self.n_extra + n  # after l = 0
        zero = nn.functional.linear(
            lowered(zero, self.fc_m0),
            self.fc_m0.weight[start : start + n],
            self.fc_m0.bias[start : start + n],
        )
        convolution = self.so2_m_conv[0]
        assert isinstance(convolution, OrderConvolution)
        pair = convolution.lowest(pair.unflatten(1, (2, -1)), n)
        return raised(torch.cat([zero.unsqueeze(1), pair], dim=1), x)


def init_so2(module: nn.Module) -> None:
    """Give complex maps of order m > 0 the variance of one real part each."""
    if isinstance(module, OrderConvolution) and not module.reflections:
        with torch.no_grad():
            module.fc.weight.mul_(1 / math.sqrt(2))
