"""Graph attention in edge frames, and the embedding of an atom's surroundings."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crack_md.models.equiformer.edges import EdgeTable, RadialFunction, SO2Convolution
from crack_md.models.layers import (
    Activation,
    GateActivation,
    LayerNorm,
    S2Activation,
    SO3Linear,
)

SOFTMAX_FLOOR = 1e-6
"""ε of the smooth attention: a lone neighbor at the cutoff has weight 0, not 1."""

Rule = Literal["strict", "smooth"]


def smooth_leaky_relu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return x · (0.6 + 0.4 · (2σ(x) − 1)): slope 0.2 below zero, 1 above."""
    return 0.6 * x + 0.4 * x * (2 * torch.sigmoid(x) - 1)


def strict_attention(
    logits: Float[Tensor, "atom slot head"], mask: Bool[Tensor, "atom slot"]
) -> Float[Tensor, "atom slot head"]:
    """Return the softmax over the filled slots of each row; empty rows give zero."""
    filled = mask.unsqueeze(-1)
    lowest = torch.finfo(logits.dtype).min
    top = logits.masked_fill(~filled, lowest).amax(dim=1, keepdim=True)
    weights = torch.exp((logits - top.detach()).masked_fill(~filled, 0)) * filled
    return weights / (weights.sum(dim=1, keepdim=True) + 1e-16)


def smooth_attention(
    logits: Float[Tensor, "atom slot head"], envelope: Float[Tensor, "atom slot"]
) -> Float[Tensor, "atom slot head"]:
    """Return env² exp(α) / (Σ env exp(α) + ε), zero with all slopes at the cutoff.

    One envelope belongs to the attention weight and one to the message: inside the
    softmax alone, a lone neighbor would keep weight 1 up to the cutoff. The logits are
    a layer norm times a fixed vector, hence bounded, so no maximum is subtracted: it
    would make ε, and with it the energy, jump.
    """
    envelope = envelope.unsqueeze(-1)
    weights = envelope * torch.exp(logits)
    return envelope * weights / (weights.sum(dim=1, keepdim=True) + SOFTMAX_FLOOR)


class EdgeDegreeEmbedding(nn.Module):
    """Sum over neighbors of a learned, axially symmetric function of distance."""

    def __init__(
        self,
        *,
        channels: int,
        lmax: int,
        n_elements: int,
        n_basis: int,
        edge_channels: int,
        average_degree: float,
    ) -> None:
        super().__init__()
        self.lmax = lmax
        self.average_degree = average_degree
        self.source_embedding = _element_embedding(n_elements, edge_channels)
        self.target_embedding = _element_embedding(n_elements, edge_channels)
        self.rad_func = RadialFunction(n_basis, edge_channels, (lmax + 1) * channels)

    def forward(self, edges: EdgeTable) -> Float[Tensor, "row coefficient channel"]:
        """Return the embedding of the table's atoms, degree order."""
        weights = self.rad_func(edges, self.source_embedding, self.target_embedding)
        if edges.envelope is None:
            weights = weights * edges.to_edges(edges.mask).unsqueeze(-1)
        else:
            # The radial network has biases: it does not vanish at the cutoff itself.
            weights = weights * edges.envelope.unsqueeze(-1)
        axial = weights.unflatten(-1, (self.lmax + 1, -1))  # (edge, m = 0, channel)
        rest = edges.rotation.shape[1] - axial.shape[1]
        values = nn.functional.pad(axial, (0, 0, 0, rest))
        return edges.rotate_back(values) / self.average_degree


class GraphAttention(nn.Module):
    """Attention of an atom to its neighbors, messages built in the edge frames.

    Both ends of an edge are rotated into its frame, scaled by a radial network, mapped
    by an SO(2) convolution, activated, mapped again, weighted, rotated back, summed.
    """

    def __init__(
        self,
        *,
        channels: int,
        hidden: int,
        heads: int,
        alpha_channels: int,
        value_channels: int,
        channels_out: int,
        lmax: int,
        mmax: int,
        n_elements: int,
        n_basis: int,
        edge_channels: int,
        activation: Activation,
        resolution: int,
        reflections: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.value_channels = value_channels
        self.alpha_shape = (heads, alpha_channels)
        n_gates = hidden if activation == "s2" else lmax * hidden
        self.extra = [heads * alpha_channels, n_gates]
        self.source_embedding = _element_embedding(n_elements, edge_channels)
        self.target_embedding = _element_embedding(n_elements, edge_channels)
        self.so2_conv_1 = SO2Convolution(
            lmax,
            mmax,
            2 * channels,
            hidden,
            n_extra=sum(self.extra),
            radial=(n_basis, edge_channels),
            reflections=reflections,
        )
        self.alpha_norm = LayerNorm(alpha_channels)
        self.alpha_dot = nn.Parameter(torch.empty(heads, alpha_channels))
        nn.init.uniform_(self.alpha_dot, -(alpha_channels**-0.5), alpha_channels**-0.5)
        self.activation = (
            S2Activation(lmax, mmax, resolution)
            if activation == "s2"
            else GateActivation(lmax, mmax, hidden)
        )
        self.so2_conv_2 = SO2Convolution(
            lmax, mmax, hidden, heads * value_channels, reflections=reflections
        )
        self.proj = SO3Linear(heads * value_channels, channels_out, lmax)

    def forward(
        self, x: Float[Tensor, "atom coefficient channel"], edges: EdgeTable
    ) -> Float[Tensor, "row coefficient channels_out"]:
        """Return the attended messages of the table's atoms, degree order."""
        message, weights = self._hidden(x, edges)
        message, _ = self.so2_conv_2(message)
        return self.proj(edges.rotate_back(self._weighted(message, weights)))

    def vectors(
        self, x: Float[Tensor, "atom coefficient channel"], edges: EdgeTable
    ) -> Float[Tensor, "row 3 channels_out"]:
        """Return the l = 1 part of the output alone, at half the cost."""
        message, weights = self._hidden(x, edges)
        message = self.so2_conv_2.vectors(message)
        summed = edges.rotate_back_vectors(self._weighted(message, weights))
        return nn.functional.linear(summed, self.proj.weight[1])

    def _hidden(
        self, x: Float[Tensor, "atom coefficient channel"], edges: EdgeTable
    ) -> tuple[Float[Tensor, "edge reduced hidden"], Float[Tensor, "edge head"]]:
        radial = self.so2_conv_1.rad_func
        assert radial is not None
        scales = radial(edges, self.source_embedding, self.target_embedding)
        message, extra = self.so2_conv_1(edges.rotate(x), scales)
        alpha, gates = extra.split(self.extra, dim=-1)
        weights = edges.to_edges(self._attention(alpha, edges))
        return self.activation(message, gates), weights

    def _weighted(
        self,
        message: Float[Tensor, "edge order channel"],
        weights: Float[Tensor, "edge head"],
    ) -> Float[Tensor, "edge order channel"]:
        values = message.unflatten(-1, (self.heads, self.value_channels))
        return (values * weights[:, None, :, None]).flatten(2)

    def _attention(
        self, alpha: Float[Tensor, "edge alpha"], edges: EdgeTable
    ) -> Float[Tensor, "atom slot head"]:
        # float32 under autocast: exponentials in bf16 cost forces their accuracy
        with torch.autocast(alpha.device.type, enabled=False):
            alpha = alpha.to(self.alpha_dot.dtype).unflatten(-1, self.alpha_shape)
            activated = smooth_leaky_relu(self.alpha_norm(alpha))
            logits = edges.to_table((activated * self.alpha_dot).sum(dim=-1))
            if edges.envelope is None:
                return strict_attention(logits, edges.mask)
            return smooth_attention(logits, edges.to_table(edges.envelope))


def _element_embedding(n_elements: int, channels: int) -> nn.Embedding:
    embedding = nn.Embedding(n_elements, channels)
    nn.init.uniform_(embedding.weight, -0.001, 0.001)
    return embedding
