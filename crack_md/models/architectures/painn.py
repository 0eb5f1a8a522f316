"""A student after PaiNN: messages of scalars and vectors along edges.

Schütt, Unke, Gastegger, ICML 2021 (arXiv:2102.03150). With s_i scalars and v_i vectors
of an atom, each layer adds

    Δs_i = Σ_j [φ(x_j) ∘ W(r_ij)]_s
    Δv_i = Σ_j [φ(x_j) ∘ W(r_ij)]_v v_j + [φ(x_j) ∘ W(r_ij)]_r r_ij/|r_ij|
    Δs_i = a_s + a_v ⟨U v_i, V v_i⟩,  Δv_i = a_u U v_i,  a = MLP(s_i, |V v_i|, z_i)

The paper starts from s_i = embedding of z_i. Here atoms start from nothing: the element
of a sender is part of its message, x_j = s_j + e(z_j), that of a receiver scales what
it makes of them, and no map of an atom has a bias. So an atom without neighbors has the
energy 0. Filters W are Bessel functions under a smooth envelope. No cross products, so
exact under reflections, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.models.harmonics import bounded
from crack_md.models.layers import BesselBasis, element_table, linear
from crack_md.models.network import (
    START_ENERGY,
    Edges,
    Network,
    NetworkOutput,
    SmoothArchitecture,
)

SMALLEST = 1e-4
"""Square of a length of vectors that counts as none: the root has a slope at 0."""


@dataclass(frozen=True)
class PainnConfig(SmoothArchitecture):
    """Every choice that changes the function or the parameters of the network."""

    limits: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {
            **SmoothArchitecture.limits,
            "channels": (1, 4096),
            "num_layers": (1, 20),
            "n_bessel": (1, 128),
            "average_degree": (1e-3, 1e6),
        }
    )

    name: Literal["painn"] = "painn"
    channels: int = 64
    num_layers: int = 2
    n_bessel: int = 16
    average_degree: float = 18.0
    """Neighbors of an atom; sums over them are divided by its root."""

    @property
    def hops(self) -> int:
        """Return over how many edges in a row an atom's energy feels another atom."""
        return self.num_layers

    @property
    def feature_channels(self) -> int:
        """Return the channels of the node features."""
        return self.channels

    @property
    def summary(self) -> str:
        """Return the sizes in a few words."""
        return f"PaiNN, {self.num_layers} layers, {self.channels} channels"


class Message(nn.Module):
    """What atoms hear of their neighbors.

    Args:
        config: of the network.
        from_vectors: whether senders have vectors yet.
    """

    def __init__(self, config: PainnConfig, *, from_vectors: bool) -> None:
        super().__init__()
        channels = config.channels
        self.from_vectors = from_vectors
        n_out = channels * (3 if from_vectors else 2)
        self.sender = nn.Parameter(torch.randn(config.num_elements, channels))
        self.first = linear(channels, channels)
        self.second = linear(channels, n_out)
        self.filter = linear(config.n_bessel, n_out)
        with torch.no_grad():
            self.filter.weight.mul_(2 * config.average_degree**-0.5)

    def forward(
        self,
        x: Float[Tensor, "4 atom channel"],
        basis: Float[Tensor, "edge basis"],
        directions: Float[Tensor, "3 edge 1"],
        edges: Edges,
    ) -> Float[Tensor, "4 atom channel"]:
        """Return the sums over neighbors: a scalar row and three vector rows."""
        sent = x[0] + self.sender.index_select(0, edges.numbers)
        sent = self.second(nn.functional.silu(self.first(sent)))
        gates = sent.index_select(0, edges.senders) * self.filter(basis)
        parts = gates.chunk(3 if self.from_vectors else 2, dim=-1)
        vectors = directions * parts[1]
        if self.from_vectors:
            vectors = vectors + x[1:].index_select(1, edges.senders) * parts[2]
        heard = torch.cat([parts[0].unsqueeze(0), vectors])
        return torch.zeros_like(x).index_add(1, edges.receivers, heard)


class Update(nn.Module):
    """What atoms make of what they have heard."""

    def __init__(self, config: PainnConfig, *, last: bool) -> None:
        super().__init__()
        channels = config.channels
        self.last = last
        self.maps = linear(channels, 2 * channels)
        self.first = linear(2 * channels, channels)
        self.receiver = element_table(config.num_elements, channels)
        self.second = linear(channels, channels * (2 if last else 3))

    def forward(
        self, x: Float[Tensor, "4 atom channel"], edges: Edges
    ) -> Float[Tensor, "4 atom channel"]:
        """Return the updated rows; the last layer leaves vectors as they are."""
        scalars, vectors = x[0], x[1:]
        one, other = self.maps(vectors).chunk(2, dim=-1)
        length = torch.sqrt(other.square().sum(dim=0) + SMALLEST) - SMALLEST**0.5
        hidden = self.first(torch.cat([scalars, length], dim=-1))
        hidden = hidden * self.receiver.index_select(0, edges.numbers)
        gates = self.second(nn.functional.silu(hidden))
        parts = gates.chunk(2 if self.last else 3, dim=-1)
        scalars = scalars + parts[0] + parts[1] * (one * other).sum(dim=0)
        if not self.last:
            vectors = vectors + parts[2] * one
        return torch.cat([scalars.unsqueeze(0), vectors])


class Painn(Network):
    """The network: rounds of messages and updates, and an energy of the scalars."""

    parts: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "embeddings": ("receiver",),
            "blocks": ("messages.", "updates."),
            "energy_head": ("energy.",),
        }
    )

    config: PainnConfig

    def __init__(self, config: PainnConfig) -> None:
        super().__init__(config)
        channels, last = config.channels, config.num_layers - 1
        self.basis = BesselBasis(config.cutoff, config.n_bessel, config.envelope_power)
        self.receiver = element_table(config.num_elements, channels)
        self.messages = nn.ModuleList(
            Message(config, from_vectors=layer > 0)
            for layer in range(config.num_layers)
        )
        self.updates = nn.ModuleList(
            Update(config, last=layer == last) for layer in range(config.num_layers)
        )
        last_map = linear(channels, 1)
        with torch.no_grad():
            last_map.weight.mul_(START_ENERGY)
        self.energy = nn.Sequential(linear(channels, channels), nn.SiLU(), last_map)

    def evaluate(
        self,
        edges: Edges,
        *,
        frames: Float[Tensor, "atom slot 3 3"] | None = None,
        recompute: bool = False,
    ) -> NetworkOutput:
        """Return raw energies and features; there are no frames and no parts."""
        basis = self.basis(edges.lengths)
        directions = (edges.vectors / edges.lengths.unsqueeze(-1)).T.unsqueeze(-1)
        own = self.receiver.index_select(0, edges.numbers)
        x = basis.new_zeros(4, edges.n_atoms, self.config.channels)
        for message, update in zip(self.messages, self.updates, strict=True):
            x = bounded(x + message(x, basis, directions, edges) * own)
            x = update(x, edges)
        features = x[0]
        energy = self.energy(features).squeeze(-1)
        return NetworkOutput(energy, None, features.unsqueeze(1))
