"""Every choice that makes an EquiformerV2."""

from dataclasses import dataclass
from typing import Literal

from crack_md.models.layers import Activation, FeedForwardKind
from crack_md.models.norms import Norm
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
