"""EquiformerV2, an equivariant graph transformer, equal in function to the public one.

Liao, Wood, Das, Smidt, ICLR 2024 (arXiv:2306.12059). Parameter names are those of the
public checkpoints. Differences: a dense neighbor table instead of an edge list, frames
without random roll, gradients through the frames, and a smooth cutoff on demand.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crack_md.models.equiformer.attention import EdgeDegreeEmbedding, GraphAttention
from crack_md.models.equiformer.edges import EdgeTable, SO2Convolution, init_so2
from crack_md.models.layers import (
    NORMS,
    Activation,
    FeedForward,
    FeedForwardKind,
    GaussianBasis,
    Norm,
    polynomial_envelope,
)
from crack_md.models.network import Architecture, Edges, Forces, Network, NetworkOutput
from crack_md.models.so3 import (
    couplings,
    edge_frames,
    edge_rotations,
    order_major_index,
    truncation_scale,
    wigner_blocks,
)
from crack_md.neighbors import NeighborRule, SmoothNeighbors, StrictNeighbors


@dataclass(frozen=True)
class EquiformerV2Config(Architecture):
    """Every choice that changes the function or the parameters of the network.

    The defaults are the public 153M model but for its depth.
    """

    limits: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {
            "max_neighbors": (1, 1000),
            "envelope_power": (2, 20),
            "num_layers": (1, 100),
            "sphere_channels": (1, 4096),
            "attn_hidden_channels": (1, 4096),
            "num_heads": (1, 256),
            "attn_alpha_channels": (1, 4096),
            "attn_value_channels": (1, 4096),
            "ffn_hidden_channels": (1, 4096),
            "lmax": (1, 12),
            "mmax": (1, 12),
            "grid_resolution": (2, 100),
            "edge_channels": (1, 4096),
            "num_distance_basis": (2, 10_000),
            "average_degree": (1e-3, 1e6),
        }
    )

    name: Literal["equiformer_v2"] = "equiformer_v2"
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
    reflections: bool = False
    """Exact under reflections as well as rotations. Public models are not: their maps
    mix orders +m and −m, which tells a structure from its mirror image."""

    def __post_init__(self) -> None:
        """Refuse what no network can be built of."""
        super().__post_init__()
        if self.mmax > self.lmax:
            raise ValueError(f"mmax is {self.mmax}; expected at most lmax {self.lmax}")
        if self.reflections and (self.activation, self.ffn) != ("gate", "gate"):
            raise ValueError(
                "reflections: true is exact with activation: gate and ffn: gate; "
                f"found {self.activation} and {self.ffn}, which act on a grid"
            )

    @property
    def rule(self) -> NeighborRule:
        """Return the neighbor rule that the network was made for."""
        if self.neighbors == "strict":
            return StrictNeighbors(count=self.max_neighbors, cutoff=self.cutoff)
        return SmoothNeighbors(cutoff=self.cutoff)

    @property
    def hops(self) -> int:
        """Return over how many edges in a row an atom's energy feels another atom."""
        return self.num_layers + 1  # the embedding of surroundings is one

    @property
    def feature_channels(self) -> int:
        """Return the channels of the node features."""
        return self.sphere_channels

    @property
    def feature_degree(self) -> int:
        """Return the highest degree l of the node features."""
        return self.lmax

    @property
    def summary(self) -> str:
        """Return the sizes in a few words."""
        return (
            f"EquiformerV2, {self.num_layers} layers, lmax {self.lmax}, "
            f"mmax {self.mmax}, {self.sphere_channels} channels, exact under "
            + ("reflections, too" if self.reflections else "rotations only")
        )


CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 4 << 30}
"""Roughly what the work on edges may hold at a time. On a CPU: a few of its caches, so
that weights are read for many edges at once."""
WHOLE_BYTES = 512 << 20
"""What it may hold on a CPU before a gradient is worth evaluating parts twice."""


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

    def is_large(self, mask: Bool[Tensor, "atom slot"]) -> bool:
        """Return whether one piece of work would take more than `WHOLE_BYTES`."""
        row = row_bytes(mask, self.config, self.sphere_embedding.weight.dtype)
        return mask.shape[0] * row > WHOLE_BYTES

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


def rows_at_once(
    edges: EdgeTable, config: EquiformerV2Config, *, recompute: bool = False
) -> int:
    """Return for how many atoms the work on edges is done at a time.

    What stays in the cache is never fetched again: chunks are as fast as one piece or
    faster, and memory is bounded. With gradients that needs `recompute`.
    """
    n_atoms = edges.mask.shape[0]
    differentiated = torch.is_grad_enabled()
    if (differentiated and not recompute) or torch.compiler.is_compiling():
        return n_atoms
    row = row_bytes(edges.mask, config, edges.rotation.dtype)
    if edges.mask.is_cuda:
        return max(1, CHUNK_BYTES["cuda"] // row)
    if differentiated and n_atoms * row <= WHOLE_BYTES:
        return n_atoms
    return max(1, CHUNK_BYTES["cpu"] // row)


def row_bytes(
    mask: Bool[Tensor, "atom slot"], config: EquiformerV2Config, dtype: torch.dtype
) -> int:
    """Return roughly what the work on the edges of an atom holds in one layer."""
    reduced = len(order_major_index(config.lmax, config.mmax))
    numbers = reduced * (4 * config.sphere_channels + 3 * config.attn_hidden_channels)
    if config.activation == "s2":
        numbers += config.grid_resolution**2 * config.attn_hidden_channels
    return mask.shape[1] * numbers * dtype.itemsize


def by_parts(
    layer: Callable[[EdgeTable], Tensor], edges: EdgeTable, n_rows: int
) -> Float[Tensor, "atom ..."]:
    """Return what a layer makes of a table, ``n_rows`` atoms at a time.

    Where gradients follow, a part keeps its input alone and is evaluated again on the
    way back: what one part holds at a time is all the memory that edges take.
    """
    if torch.is_grad_enabled() and n_rows < edges.mask.shape[0]:
        layer = partial(
            checkpoint, layer, use_reentrant=False, preserve_rng_state=False
        )
    return torch.cat([layer(part) for part in edges.parts(n_rows)])
