"""EquiformerV2, an equivariant graph transformer, equal in function to the public one.

Liao, Wood, Das, Smidt, ICLR 2024 (arXiv:2306.12059). Parameter names are those of the
public checkpoints. Differences: a dense neighbor table instead of an edge list, frames
without random roll, gradients through the frames, and a smooth cutoff on demand.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.models.attention import EdgeDegreeEmbedding, GraphAttention
from crack_md.models.edges import EdgeTable, by_parts, rows_at_once
from crack_md.models.equiformer_config import EquiformerV2Config
from crack_md.models.layers import FeedForward
from crack_md.models.network import Edges, Network, NetworkOutput
from crack_md.models.norms import NORMS
from crack_md.models.radial import GaussianBasis, polynomial_envelope
from crack_md.models.so2 import SO2Convolution, init_so2
from crack_md.models.so3 import (
    couplings,
    edge_frames,
    edge_rotations,
    order_major_index,
    truncation_scale,
    wigner_blocks,
)


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
        self,
        x: Float[Tensor, "atom coefficient channel"],
        edges: EdgeTable,
        n_rows: int,
    ) -> Float[Tensor, "atom coefficient channel"]:
        """Return the updated atoms; edges are worked on ``n_rows`` atoms at a time."""
        normed = self.norm_1(x)
        x = x + by_parts(lambda part: self.ga(normed, part), edges, n_rows)
        return x + self.ffn(self.norm_2(x))


class EquiformerV2(Network):
    """The network: atoms and their neighbors to raw energies, forces and features."""

    parts: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "embeddings": ("sphere_embedding.", "edge_degree_embedding."),
            "blocks": ("blocks.",),
            "norm": ("norm.",),
            "delta": ("delta.",),
            "energy_head": ("energy_block.",),
            "force_head": ("force_block.",),
        }
    )

    truncation: Tensor
    order: Tensor
    config: EquiformerV2Config

    def __init__(self, config: EquiformerV2Config) -> None:
        super().__init__(config)
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
        for degree, coupling in enumerate(couplings(config.lmax), start=2):
            self.keep(f"coupling_{degree}", coupling)
        order = torch.tensor(order_major_index(config.lmax, config.mmax))
        self.register_buffer("order", order, persistent=False)
        scale = torch.tensor(truncation_scale(config.lmax, config.mmax))
        self.register_buffer("truncation", scale.unsqueeze(-1), persistent=False)

    def evaluate(
        self,
        edges: Edges,
        *,
        frames: Float[Tensor, "atom slot 3 3"] | None = None,
        recompute: bool = False,
    ) -> NetworkOutput:
        """Return raw energies per atom, raw direct forces and final features."""
        table = self.edge_table(edges, frames)
        embedding = self.sphere_embedding(edges.numbers).unsqueeze(1)
        rest = (self.config.lmax + 1) ** 2 - 1
        x = nn.functional.pad(embedding, (0, 0, 0, rest))
        n_rows = rows_at_once(table, self.config, recompute=recompute)
        x = x + by_parts(self.edge_degree_embedding, table, n_rows)
        for block in self.blocks:
            x = block(x, table, n_rows)
        x = self.norm(x)
        if self.delta is not None:
            x = x + self.delta(x)
        energy = self.energy_block.invariants(x).squeeze(-1)
        if self.force_block is None:
            return NetworkOutput(energy, None, x)
        head = self.force_block.vectors  # l = 1 is (x, y, z)
        forces = by_parts(lambda part: head(x, part), table, n_rows).squeeze(-1)
        return NetworkOutput(energy, forces, x)

    def edge_table(
        self, edges: Edges, frames: Float[Tensor, "atom slot 3 3"] | None = None
    ) -> EdgeTable:
        """Return distances, elements, rotations and envelopes of all edges."""
        config = self.config
        if frames is None:
            rotations = edge_frames(edges.vectors)
        else:
            rotations = frames.flatten(0, 1)
            if edges.filled is not None:
                rotations = rotations.index_select(0, edges.filled)
        given = [getattr(self, f"coupling_{d}") for d in range(2, config.lmax + 1)]
        blocks = wigner_blocks(rotations, given)[: config.lmax + 1]
        rotation = edge_rotations(blocks, self.order)
        envelope = None
        if config.neighbors == "smooth":
            envelope = polynomial_envelope(
                edges.lengths, config.cutoff, config.envelope_power
            )
            envelope = envelope * edges.real
        table = EdgeTable(
            basis=self.distance_expansion(edges.lengths),
            senders=edges.senders,
            receivers=edges.receivers,
            sender_numbers=edges.numbers.index_select(0, edges.senders),
            receiver_numbers=edges.numbers.index_select(0, edges.receivers),
            rotation=rotation,
            rotation_back=rotation,
            truncation=self.truncation,
            envelope=envelope,
            filled=edges.filled,
            mask=edges.mask,
        )
        return table._replace(rotation_back=table.to_table(rotation).flatten(1, 2))

    def lower_products(self, dtype: torch.dtype) -> None:
        """Let SO(2) convolutions and networks on grids compute in a lower precision.

        These are nearly all operations. Rotations, radial weights, norms, attention
        weights and sums keep their precision: rounding those moved the energies of
        trained students twice as much.
        """
        for module in self.modules():
            if isinstance(module, SO2Convolution):
                module.fc_m0.to(dtype)
                module.so2_m_conv.to(dtype)
            elif isinstance(module, FeedForward) and module.kind == "grid":
                module.grid_mlp.to(dtype)


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
        reflections=config.reflections,
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
