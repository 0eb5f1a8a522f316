"""Every choice that makes an EquiformerV2."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

from crack_md.models.layers import Activation, FeedForwardKind
from crack_md.models.network import Architecture, Forces
from crack_md.models.norms import Norm
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
