"""Functions of distance: the basis, the networks on it, and the smooth cutoff."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.models.constants import ExactConstants
from crack_md.models.edges import EdgeTable
from crack_md.models.norms import LayerNorm


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
