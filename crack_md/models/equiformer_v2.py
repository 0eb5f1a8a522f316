"""EquiformerV2, an equivariant graph transformer, equal in function to the public one.

Liao, Wood, Das, Smidt, ICLR 2024 (arXiv:2306.12059). Parameter names are those of the
public checkpoints. Differences: a dense neighbor table instead of an edge list, frames
without random roll, gradients through the frames, and a smooth cutoff on demand.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.graph import AtomGraph, edge_vectors
from crack_md.models.attention import EdgeDegreeEmbedding, GraphAttention
from crack_md.models.edges import EdgeTable, by_parts, rows_at_once
from crack_md.models.equiformer_config import EquiformerV2Config
from crack_md.models.layers import FeedForward
from crack_md.models.norms import NORMS
from crack_md.models.radial import GaussianBasis, polynomial_envelope
from crack_md.models.so2 import init_so2
from crack_md.models.so3 import (
    couplings,
    edge_frames,
    edge_rotations,
    order_major_index,
    truncation_scale,
    wigner_blocks,
)


class NetworkOutput(NamedTuple):
    """Raw outputs, before any scale or reference."""

    node_energy: Float[Tensor, " atom"]
    forces: Float[Tensor, "atom 3"] | None
    node_features: Float[Tensor, "atom coefficient channel"]


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


class EquiformerV2(nn.Module):
    """The network: atoms and their neighbors to raw energies, forces and features."""

    truncation: Tensor
    order: Tensor
    filler: Tensor

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
        self._place_couplings()
        order = torch.tensor(order_major_index(config.lmax, config.mmax))
        self.register_buffer("order", order, persistent=False)
        scale = torch.tensor(truncation_scale(config.lmax, config.mmax))
        self.register_buffer("truncation", scale.unsqueeze(-1), persistent=False)
        filler = torch.tensor([0.0, config.cutoff, 0.0])
        self.register_buffer("filler", filler, persistent=False)

    def forward(
        self,
        graph: AtomGraph,
        *,
        frames: Float[Tensor, "atom slot 3 3"] | None = None,
        compact: bool | None = None,
        recompute: bool = False,
    ) -> NetworkOutput:
        """Return raw energies per atom, raw direct forces and final features.

        Args:
            graph: atoms and neighbor table, built by ``config.rule``.
            frames: rotations that turn each edge onto +y; None takes `edge_frames`.
            compact: leave empty slots out of the work; None does so on the CPU, where
                it costs neither a synchronisation nor a recompilation.
            recompute: evaluate parts of large structures again for a gradient, instead
                of keeping what it needs. The gradient itself has none then.
        """
        edges = self.edge_table(graph, frames, compact=compact)
        embedding = self.sphere_embedding(graph.atomic_numbers).unsqueeze(1)
        rest = (self.config.lmax + 1) ** 2 - 1
        x = nn.functional.pad(embedding, (0, 0, 0, rest))
        n_rows = rows_at_once(edges, self.config, recompute=recompute)
        x = x + by_parts(self.edge_degree_embedding, edges, n_rows)
        for block in self.blocks:
            x = block(x, edges, n_rows)
        x = self.norm(x)
        if self.delta is not None:
            x = x + self.delta(x)
        energy = self.energy_block.invariants(x).squeeze(-1)
        if self.force_block is None:
            return NetworkOutput(energy, None, x)
        head = self.force_block.vectors  # l = 1 is (x, y, z)
        forces = by_parts(lambda part: head(x, part), edges, n_rows).squeeze(-1)
        return NetworkOutput(energy, forces, x)

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> "EquiformerV2":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._place_couplings()
        return self

    def _place_couplings(self) -> None:
        """Put constants beside the weights, once: in a call the host would wait.

        They are no buffers: those of a model that goes through float32 stay rounded.
        """
        weight = self.sphere_embedding.weight
        self._couplings = [
            coupling.to(device=weight.device, dtype=weight.dtype)
            for coupling in couplings(self.config.lmax)
        ]

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
        if filled is not None and filled.shape[0] == graph.mask.numel():
            filled = None  # nothing is empty, as nearly always under the strict rule
        # An empty slot gets a harmless direction: zero vectors have no frame.
        vectors = edge_vectors(graph)
        vectors = torch.where(graph.mask.unsqueeze(-1), vectors, self.filler)
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
        blocks = wigner_blocks(rotations, self._couplings)[: config.lmax + 1]
        rotation = edge_rotations(blocks, self.order)
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
            truncation=self.truncation,
            envelope=envelope,
            filled=filled,
            mask=graph.mask,
        )
        return table._replace(rotation_back=table.to_table(rotation).flatten(1, 2))


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
