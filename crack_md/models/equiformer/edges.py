"""Edges of EquiformerV2: their table, radial functions, and SO(2) convolutions.

Edges are rotated so that they point along y; there a convolution is a few dense
products (`SO2Convolution`), and this is the way there and back.

Turning the frame about its edge by φ multiplies x₊ + i x₋ by exp(imφ), and any complex
map commutes with that. A mirror that holds the edge takes x₋ to −x₋, and only the real
part of a map commutes with that, too: equivariance under O(2) halves the weights.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from crack_md.models.layers import LayerNorm, lowered, raised

EDGE_COLUMNS = (
    "basis",
    "senders",
    "receivers",
    "sender_numbers",
    "receiver_numbers",
    "rotation",
    "envelope",
    "filled",
)
"""What a table has for every edge, not for every atom."""


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
    """The same matrices as a table."""
    truncation: Float[Tensor, "coefficient 1"]
    """What makes up for the variance of the orders cut away, degree order."""
    envelope: Float[Tensor, " edge"] | None
    """Smooth rule: 1 at short distance, 0 at the cutoff. Strict rule: None."""
    filled: Int[Tensor, " edge"] | None
    """Slots that edges belong to; None if every slot is an edge."""
    mask: Bool[Tensor, "atom slot"]
    first_atom: int = 0
    """The atom of the first row: tables can be cut into parts."""

    @property
    def rows(self) -> slice:
        """Return which atoms the rows belong to."""
        return slice(self.first_atom, self.first_atom + self.mask.shape[0])

    def parts(self, n_rows: int) -> Iterator["EdgeTable"]:
        """Yield tables of at most so many atoms, all of them the same for one part."""
        n_atoms, width = self.mask.shape
        if n_rows >= n_atoms:
            yield self
            return
        sizes = [min(n_rows, n_atoms - first) for first in range(0, n_atoms, n_rows)]
        if self.filled is None:
            cuts = [size * width for size in sizes]
        else:
            ends = torch.tensor(sizes, device=self.filled.device).cumsum(0) * width
            last = torch.searchsorted(self.filled, ends)
            cuts = last.diff(prepend=last.new_zeros(1)).tolist()
        # split, not slices: their gradients would each be as large as the table
        columns = {
            name: getattr(self, name).split(cuts)
            for name in EDGE_COLUMNS
            if getattr(self, name) is not None
        }
        columns["rotation_back"] = self.rotation_back.split(sizes)
        columns["mask"] = self.mask.split(sizes)
        for place, values in enumerate(zip(*columns.values(), strict=True)):
            part = self._replace(**dict(zip(columns, values, strict=True)))
            first = place * n_rows
            if part.filled is not None:
                part = part._replace(filled=part.filled - first * width)
            yield part._replace(first_atom=self.first_atom + first)

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

    def rotate(
        self, x: Float[Tensor, "atom coefficient channel"]
    ) -> Float[Tensor, "edge reduced both"]:
        """Return senders beside receivers, in the frames of the edges."""
        sender = torch.bmm(self.rotation, x.index_select(0, self.senders))
        if self.filled is None:
            # one atom, many frames: a single product for each row of the table
            receiver = torch.bmm(self.rotation_back, x[self.rows]).view_as(sender)
        else:
            receiver = torch.bmm(self.rotation, x.index_select(0, self.receivers))
        return torch.cat([sender, receiver], dim=-1)

    def rotate_back(
        self, values: Float[Tensor, "edge reduced channel"]
    ) -> Float[Tensor, "row coefficient channel"]:
        """Return the sums over the rows of what is rotated back, in degree order."""
        stacked = self.to_table(values).flatten(1, 2)
        return torch.bmm(self.rotation_back.transpose(1, 2), stacked) * self.truncation

    def rotate_back_vectors(
        self, values: Float[Tensor, "edge 3 channel"]
    ) -> Float[Tensor, "row 3 channel"]:
        """Return the same for l = 1 alone, from its orders 0, +1 and −1."""
        matrices = self.rotation_back.unflatten(1, (self.mask.shape[1], -1))
        top = math.isqrt(self.truncation.shape[0])  # l = 0 … lmax: the rows of order 0
        rows = [1, top, 2 * top - 1]
        vectors = torch.stack([matrices[:, :, row, 1:4] for row in rows], dim=2)
        vectors = vectors.flatten(1, 2)
        stacked = self.to_table(values).flatten(1, 2)
        return torch.bmm(vectors.transpose(1, 2), stacked) * self.truncation[1:4]


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
