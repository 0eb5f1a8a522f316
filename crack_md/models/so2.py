"""SO(2) convolutions: linear maps in the frame of an edge, one GEMM for each order."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from crack_md.models.norms import LayerNorm


class EdgeTable(NamedTuple):
    """What the layers know about the edges; computed once per forward call.

    Edges are the slots of the neighbor table, row by row. The padding is left out
    where that is cheap (`filled`), and takes part, masked, where shapes must not
    depend on data.
    """

    basis: Float[Tensor, "edge basis"]
    """Radial basis of the distances."""
    senders: Int[Tensor, " edge"]
    receivers: Int[Tensor, " edge"]
    sender_numbers: Int[Tensor, " edge"]
    receiver_numbers: Int[Tensor, " edge"]
    rotation: Float[Tensor, "edge reduced coefficient"]
    """Wigner matrices into the edge frames, truncated at mmax, order-major."""
    rotation_back: Float[Tensor, "atom slot_reduced coefficient"]
    """The same as a table, the variance of the truncated orders made up for."""
    envelope: Float[Tensor, " edge"] | None
    """Smooth rule: 1 at short distance, 0 at the cutoff. Strict rule: None."""
    filled: Int[Tensor, " edge"] | None
    """Slots that edges belong to; None if every slot is an edge."""
    mask: Bool[Tensor, "atom slot"]

    def to_table(
        self, values: Float[Tensor, "edge ..."]
    ) -> Float[Tensor, "atom slot ..."]:
        """Return values of edges as rows of atoms, zero in the padding left out."""
        if self.filled is not None:
            table = values.new_zeros(self.mask.numel(), *values.shape[1:])
            values = table.index_copy(0, self.filled, values)
        return values.unflatten(0, self.mask.shape)

    def to_edges(
        self, table: Shaped[Tensor, "atom slot ..."]
    ) -> Shaped[Tensor, "edge ..."]:
        """Return the values of a table at the edges."""
        flat = table.flatten(0, 1)
        return flat if self.filled is None else flat.index_select(0, self.filled)


class RadialFunction(nn.Module):
    """MLP from the radial basis and the two elements of an edge to weights."""

    def __init__(self, n_basis: int, edge_channels: int, n_out: int) -> None:
        super().__init__()
        self.n_basis = n_basis
        self.edge_channels = edge_channels
        self.net = nn.Sequential(
            nn.Linear(n_basis + 2 * edge_channels, edge_channels),
            LayerNorm(edge_channels),
            nn.SiLU(),
            nn.Linear(edge_channels, edge_channels),
            LayerNorm(edge_channels),
            nn.SiLU(),
            nn.Linear(edge_channels, n_out),
        )

    def forward(
        self, edges: EdgeTable, source: nn.Embedding, target: nn.Embedding
    ) -> Float[Tensor, "edge weight"]:
        """Return the radial weights of every edge."""
        first = self.net[0]
        assert isinstance(first, nn.Linear)
        sizes = [self.n_basis, self.edge_channels, self.edge_channels]
        by_distance, by_sender, by_receiver = first.weight.split(sizes, dim=1)
        # The first layer acts on elements, not edges, for two of its three inputs.
        sender = source.weight @ by_sender.T
        receiver = target.weight @ by_receiver.T + first.bias
        hidden = edges.basis @ by_distance.T
        # index_select, not [...]: its backward is an index_add, several times faster
        hidden = hidden + sender.index_select(0, edges.sender_numbers)
        hidden = hidden + receiver.index_select(0, edges.receiver_numbers)
        return self.net[1:](hidden)


class OrderConvolution(nn.Module):
    """Complex linear map of the coefficients of orders +m and −m."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.fc = nn.Linear(n_in, 2 * n_out, bias=False)

    def forward(self, x: Float[Tensor, "edge 2 n_in"]) -> Float[Tensor, "edge 2 n_out"]:
        """Return (Wᵣ + i Wᵢ)(x₊ + i x₋), real part first."""
        real, imaginary = self.fc(x).chunk(2, dim=-1)
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
    ) -> None:
        super().__init__()
        self.mmax = mmax
        self.n_extra = n_extra
        self.channels_out = channels_out
        self.widths = [(lmax + 1 - m) * channels_in for m in range(mmax + 1)]
        n_out = [(lmax + 1 - m) * channels_out for m in range(mmax + 1)]
        self.fc_m0 = nn.Linear(self.widths[0], n_out[0] + n_extra)
        self.so2_m_conv = nn.ModuleList(
            OrderConvolution(self.widths[m], n_out[m]) for m in range(1, mmax + 1)
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
        extra, zero = self.fc_m0(zero).split(
            [self.n_extra, self.fc_m0.out_features - self.n_extra], dim=1
        )
        outputs = [zero]
        for m, convolution in enumerate(self.so2_m_conv, start=1):
            pair = parts[m].view(edges, 2, self.widths[m])
            if scales is not None:
                pair = pair * scales[m].unsqueeze(1)
            outputs.append(convolution(pair).flatten(1))
        out = torch.cat(outputs, dim=1)
        return out.unflatten(1, (-1, self.channels_out)), extra


def init_so2(module: nn.Module) -> None:
    """Give the maps of order m > 0 the variance of one real part each."""
    if isinstance(module, OrderConvolution):
        with torch.no_grad():
            module.fc.weight.mul_(1 / math.sqrt(2))
