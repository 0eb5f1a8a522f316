"""EquiformerV2, an equivariant graph transformer, equal in function to the public one.

Liao, Wood, Das, Smidt, ICLR 2024 (arXiv:2306.12059). Parameter names are those of the
public checkpoints. Differences: a dense neighbor table instead of an edge list, frames
without random roll, gradients through the frames, and a smooth cutoff on demand.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.graph import AtomGraph, edge_vectors
from crack_md.models.attention import (
    EdgeDegreeEmbedding,
    GraphAttention,
    polynomial_envelope,
)
from crack_md.models.layers import Activation, FeedForward, FeedForwardKind
from crack_md.models.norms import NORMS, Norm
from crack_md.models.so2 import EdgeTable, init_so2
from crack_md.models.so3 import (
    edge_frames,
    edge_rotations,
    order_major_index,
    truncation_scale,
)
from crack_md.neighbors import NeighborRule, SmoothNeighbors, StrictNeighbors

Forces = Literal["direct", "gradient"]


@dataclass(frozen=True)
class EquiformerV2Config:
    """Every choice that changes the function or the parameters of the network.

    The defaults are the public 153M model but for its depth.
    """

    neighbors: Literal["strict", "smooth"] = "strict"
    cutoff: float = 12.0
    """Å."""
    max_neighbors: int = 20
    """Of the strict rule; the smooth rule keeps all inside the cutoff."""
    envelope_power: int = 5
    """Of the smooth rule: a higher power keeps more of the range, and falls later."""
    num_elements: int = 90
    """Rows of the element tables: atomic numbers below this are representable."""
    num_layers: int = 20
    sphere_channels: int = 128
    attn_hidden_channels: int = 64
    num_heads: int = 8
    attn_alpha_channels: int = 64
    attn_value_channels: int = 16
    ffn_hidden_channels: int = 128
    lmax: int = 6
    mmax: int = 3
    grid_resolution: int = 18
    edge_channels: int = 128
    num_distance_basis: int = 600
    norm: Norm = "layer_norm_sh"
    activation: Activation = "s2"
    ffn: FeedForwardKind = "grid"
    forces: Forces = "direct"
    delta: bool = False
    """Residual feed-forward after the final norm, as in the public CRACK student."""
    average_degree: float = 23.395238876342773
    average_atoms: float = 77.81317
    """What sums over neighbors and over atoms are divided by."""

    @property
    def rule(self) -> NeighborRule:
        """Return the neighbor rule that the network was made for."""
        if self.neighbors == "strict":
            return StrictNeighbors(count=self.max_neighbors, cutoff=self.cutoff)
        return SmoothNeighbors(cutoff=self.cutoff)


class NetworkOutput(NamedTuple):
    """Raw outputs, before any scale or reference."""

    node_energy: Float[Tensor, " atom"]
    forces: Float[Tensor, "atom 3"] | None
    node_features: Float[Tensor, "atom coefficient channel"]


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


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a shortcut."""

    def __init__(self, config: EquiformerV2Config) -> None:
        super().__init__()
        norm = NORMS[config.norm]
        self.norm_1 = norm(config.lmax, config.sphere_channels)
        self.ga = attention(config, channels_out=config.sphere_channels)
        self.norm_2 = norm(config.lmax, config.sphere_channels)
        self.ffn = feed_forward(config, channels_out=config.sphere_channels)

    def forward(
        self, x: Float[Tensor, "atom coefficient channel"], edges: EdgeTable
    ) -> Float[Tensor, "atom coefficient channel"]:
        """Return the updated atoms."""
        x = x + self.ga(self.norm_1(x), edges)
        return x + self.ffn(self.norm_2(x))


class EquiformerV2(nn.Module):
    """The network: atoms and their neighbors to raw energies, forces and features."""

    truncation: Tensor

    def __init__(self, config: EquiformerV2Config) -> None:
        super().__init__()
        self.config = config
        channels = config.sphere_channels
        self.sphere_embedding = nn.Embedding(config.num_elements, channels)
        self.distance_expansion = GaussianBasis(
            config.cutoff, config.num_distance_basis
        )
        self.edge_degree_embedding = EdgeDegreeEmbedding(
            channels=channels,
            lmax=config.lmax,
            n_elements=config.num_elements,
            n_basis=config.num_distance_basis,
            edge_channels=config.edge_channels,
            average_degree=config.average_degree,
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(config) for _ in range(config.num_layers)
        )
        self.norm = NORMS[config.norm](config.lmax, channels)
        self.delta = (
            feed_forward(config, channels_out=channels) if config.delta else None
        )
        self.energy_block = feed_forward(config, channels_out=1)
        self.force_block = (
            attention(config, channels_out=1) if config.forces == "direct" else None
        )
        self.apply(_initialise)
        self.apply(init_so2)
        scale = torch.tensor(truncation_scale(config.lmax, config.mmax))
        scale = scale[order_major_index(config.lmax, config.mmax)]
        self.register_buffer("truncation", scale.unsqueeze(-1), persistent=False)

    def forward(
        self,
        graph: AtomGraph,
        *,
        frames: Float[Tensor, "atom slot 3 3"] | None = None,
        compact: bool | None = None,
    ) -> NetworkOutput:
        """Return raw energies per atom, raw direct forces and final features.

        Args:
            graph: atoms and neighbor table, built by ``config.rule``.
            frames: rotations that turn each edge onto +y; None takes `edge_frames`.
            compact: leave empty slots out of the work; None does so on the CPU, where
                it costs neither a synchronisation nor a recompilation.
        """
        edges = self.edge_table(graph, frames, compact=compact)
        embedding = self.sphere_embedding(graph.atomic_numbers).unsqueeze(1)
        rest = (self.config.lmax + 1) ** 2 - 1
        x = nn.functional.pad(embedding, (0, 0, 0, rest))
        x = x + self.edge_degree_embedding(edges)
        for block in self.blocks:
            x = block(x, edges)
        x = self.norm(x)
        if self.delta is not None:
            x = x + self.delta(x)
        energy = self.energy_block.invariants(x).squeeze(-1)
        if self.force_block is None:
            return NetworkOutput(energy, None, x)
        forces = self.force_block(x, edges)[:, 1:4].squeeze(-1)  # l = 1 is (x, y, z)
        return NetworkOutput(energy, forces, x)

    def edge_table(
        self,
        graph: AtomGraph,
        frames: Float[Tensor, "atom slot 3 3"] | None = None,
        *,
        compact: bool | None = None,
    ) -> EdgeTable:
        """Return distances, elements, rotations and envelopes of all edges."""
        config = self.config
        shape = graph.mask.shape
        if compact is None:
            compact = not (graph.mask.is_cuda or torch.compiler.is_compiling())
        filled = graph.mask.flatten().nonzero().squeeze(-1) if compact else None
        # An empty slot gets a harmless direction: zero vectors have no frame.
        vectors = edge_vectors(graph)
        filler = vectors.new_tensor([0.0, config.cutoff, 0.0])
        vectors = torch.where(graph.mask.unsqueeze(-1), vectors, filler)
        slots = torch.arange(graph.mask.numel(), device=graph.mask.device)
        slots = slots if filled is None else filled
        receivers = slots // shape[1]
        senders = graph.neighbors.flatten().index_select(0, slots)
        vectors = vectors.flatten(0, 1).index_select(0, slots)
        distance = torch.linalg.vector_norm(vectors, dim=-1)
        if frames is None:
            rotations = edge_frames(vectors)
        else:
            rotations = frames.flatten(0, 1).index_select(0, slots)
        rotation = edge_rotations(rotations, config.lmax, config.mmax)
        envelope = None
        if config.neighbors == "smooth":
            envelope = polynomial_envelope(
                distance, config.cutoff, config.envelope_power
            )
            envelope = envelope * graph.mask.flatten().index_select(0, slots)
        numbers = graph.atomic_numbers
        table = EdgeTable(
            basis=self.distance_expansion(distance),
            senders=senders,
            receivers=receivers,
            sender_numbers=numbers.index_select(0, senders),
            receiver_numbers=numbers.index_select(0, receivers),
            rotation=rotation,
            rotation_back=rotation,
            envelope=envelope,
            filled=filled,
            mask=graph.mask,
        )
        back = table.to_table(rotation * self.truncation).flatten(1, 2)
        return table._replace(rotation_back=back)


def attention(config: EquiformerV2Config, *, channels_out: int) -> GraphAttention:
    """Return the attention layer that the configuration describes."""
    return GraphAttention(
        channels=config.sphere_channels,
        hidden=config.attn_hidden_channels,
        heads=config.num_heads,
        alpha_channels=config.attn_alpha_channels,
        value_channels=config.attn_value_channels,
        channels_out=channels_out,
        lmax=config.lmax,
        mmax=config.mmax,
        n_elements=config.num_elements,
        n_basis=config.num_distance_basis,
        edge_channels=config.edge_channels,
        activation=config.activation,
        resolution=config.grid_resolution,
    )


def feed_forward(config: EquiformerV2Config, *, channels_out: int) -> FeedForward:
    """Return the feed-forward network that the configuration describes."""
    return FeedForward(
        config.sphere_channels,
        config.ffn_hidden_channels,
        channels_out,
        config.lmax,
        config.ffn,
        config.grid_resolution,
    )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        bound = module.in_features**-0.5
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
