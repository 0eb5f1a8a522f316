"""A student after the atomic cluster expansion, with one round of messages.

Drautz, Phys. Rev. B 99, 014104 (2019): products of neighbor densities are invariants of
many bodies at the price of pairs. Edges only fill densities; all else happens on atoms,
which are thirty times fewer, so this is the fastest of the architectures on a CPU.

    A_lm   = Σ_j W_l [B(r_ij) ⊗ w(z_j)] Y_lm(r_ij) · g(z_i)        layer 1
    A'_lm  = Σ_j W'_l [B(r_ij) ⊗ m_j] Y_lm(r_ij) · g'(z_i) + U_l A_lm    layer 2
    E_i    = readout(products of A) + readout'(products of A', readout(...))

B are Bessel functions under a smooth envelope (Gasteiger et al. 2020), w and g learned
weights of elements, and m_j scalars that atom j knows of its surroundings. Nothing has
a bias, so an atom without neighbors has the energy 0. Exact under rotations and
reflections by construction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.models.harmonics import DensityProducts, Harmonics, bounded
from crack_md.models.layers import BesselBasis, element_table, linear
from crack_md.models.network import (
    START_ENERGY,
    Edges,
    Network,
    NetworkOutput,
    SmoothArchitecture,
)
from crack_md.models.so3 import degrees

START_MESSAGE = 0.5
"""Scale of messages of new networks: their densities are then about 1."""


@dataclass(frozen=True)
class AceConfig(SmoothArchitecture):
    """Every choice that changes the function or the parameters of the network."""

    limits: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {
            **SmoothArchitecture.limits,
            "channels": (1, 1024),
            "lmax": (1, 6),
            "n_bessel": (1, 64),
            "element_weights": (1, 128),
            "n_bessel_messages": (1, 64),
            "messages": (1, 512),
            "hidden_channels": (1, 4096),
            "average_degree": (1e-3, 1e6),
        }
    )

    name: Literal["ace"] = "ace"
    channels: int = 32
    """Of the densities."""
    lmax: int = 2
    n_bessel: int = 8
    element_weights: int = 6
    """Learned weights of the sender's element in layer 1."""
    n_bessel_messages: int = 6
    messages: int = 16
    """Scalars that an atom sends in layer 2."""
    hidden_channels: int = 64
    """Of the readouts, and of the node features."""
    average_degree: float = 18.0
    """Neighbors of an atom; densities are divided by its root."""

    @property
    def hops(self) -> int:
        """Return over how many edges in a row an atom's energy feels another atom."""
        return 2

    @property
    def feature_channels(self) -> int:
        """Return the channels of the node features."""
        return self.hidden_channels

    @property
    def summary(self) -> str:
        """Return the sizes in a few words."""
        return f"ACE-like, 2 layers, lmax {self.lmax}, {self.channels} channels"


class Density(nn.Module):
    """Sums over neighbors of radial features times harmonics, mixed to channels."""

    degree: Tensor

    def __init__(self, config: AceConfig, n_features: int) -> None:
        super().__init__()
        size = (config.lmax + 1, n_features, config.channels)
        scale = 1.5 * (n_features * config.average_degree) ** -0.5
        self.weight = nn.Parameter(torch.randn(size) * scale)
        self.receiver = element_table(config.num_elements, config.channels)
        degree = torch.tensor(degrees(config.lmax))
        self.register_buffer("degree", degree, persistent=False)

    def forward(
        self,
        basis: Float[Tensor, "atom slot basis"],
        weights: Float[Tensor, "atom slot weight"],
        harmonics: Float[Tensor, "atom slot coefficient"],
        edges: Edges,
    ) -> Float[Tensor, "coefficient atom channel"]:
        """Return the density around every atom."""
        features = (basis.unsqueeze(-1) * weights.unsqueeze(-2)).flatten(2)
        raw = torch.bmm(harmonics.transpose(1, 2), features)
        weight = self.weight.index_select(0, self.degree)
        density = torch.bmm(raw.transpose(0, 1), weight)
        return density * self.receiver.index_select(0, edges.numbers)


class Readout(nn.Module):
    """From invariants of atoms to features and an energy, without a bias."""

    def __init__(self, n_in: int, config: AceConfig) -> None:
        super().__init__()
        hidden = config.hidden_channels
        self.first = linear(n_in, hidden)
        self.receiver = element_table(config.num_elements, hidden)
        self.second = linear(hidden, hidden)
        self.energy = linear(hidden, 1)
        with torch.no_grad():
            self.energy.weight.mul_(START_ENERGY)

    def forward(
        self, invariants: Float[Tensor, "atom invariant"], edges: Edges
    ) -> tuple[Float[Tensor, "atom hidden"], Float[Tensor, " atom"]]:
        """Return features and energies."""
        own = self.receiver.index_select(0, edges.numbers)
        hidden = nn.functional.silu(self.first(invariants) * own)
        features = nn.functional.silu(self.second(hidden))
        return features, self.energy(features).squeeze(-1)


class Ace(Network):
    """The network: densities, products and readouts of two layers."""

    parts: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "embeddings": ("sender", "density_1.", "density_2."),
            "blocks": ("products_1.", "products_2.", "message.", "carried"),
            "energy_head": ("readout_1.", "readout_2."),
        }
    )

    config: AceConfig

    def __init__(self, config: AceConfig) -> None:
        super().__init__(config)
        channels, hidden = config.channels, config.hidden_channels
        self.harmonics = Harmonics(config.lmax)
        n_radial = max(config.n_bessel, config.n_bessel_messages)
        self.basis = BesselBasis(config.cutoff, n_radial, config.envelope_power)
        self.sender = nn.Parameter(
            torch.randn(config.num_elements, config.element_weights)
        )
        self.density_1 = Density(config, config.n_bessel * config.element_weights)
        self.products_1 = DensityProducts(config.lmax, channels)
        n_invariants = self.products_1.per_channel * channels
        self.readout_1 = Readout(n_invariants, config)
        self.message = linear(hidden, config.messages)
        with torch.no_grad():
            self.message.weight.mul_(START_MESSAGE)
        self.sender_2 = element_table(config.num_elements, config.messages)
        self.density_2 = Density(config, config.n_bessel_messages * config.messages)
        self.carried = nn.Parameter(torch.randn(config.lmax + 1, channels, channels))
        with torch.no_grad():
            self.carried.mul_((2 * channels) ** -0.5)
        self.products_2 = DensityProducts(config.lmax, channels)
        self.readout_2 = Readout(n_invariants + hidden, config)

    def evaluate(
        self,
        edges: Edges,
        *,
        frames: Float[Tensor, "atom slot 3 3"] | None = None,
        recompute: bool = False,
    ) -> NetworkOutput:
        """Return raw energies and features; there are no frames and no parts."""
        config, senders = self.config, edges.senders
        directions = edges.vectors / edges.lengths.unsqueeze(-1)
        harmonics = edges.to_table(self.harmonics(directions))
        basis = edges.to_table(self.basis(edges.lengths))
        elements = edges.numbers.index_select(0, senders)
        known = edges.to_table(self.sender.index_select(0, elements))
        first = self.density_1(basis[..., : config.n_bessel], known, harmonics, edges)
        first = bounded(first)
        features, energy = self.readout_1(self.products_1(first), edges)
        sent = self.message(features) * self.sender_2.index_select(0, edges.numbers)
        heard = edges.to_table(sent.index_select(0, senders))
        basis = basis[..., : config.n_bessel_messages]
        second = self.density_2(basis, heard, harmonics, edges)
        carried = self.carried.index_select(0, self.density_1.degree)
        second = bounded(second + torch.bmm(first, carried))
        invariants = torch.cat([self.products_2(second), features], dim=-1)
        features, more = self.readout_2(invariants, edges)
        return NetworkOutput(energy + more, None, features.unsqueeze(1))
