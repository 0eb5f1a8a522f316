"""TensorNet, a network of 3×3 tensors on atoms, as the MatPES potentials use it.

Simeon, de Fabritiis, NeurIPS 2023 (arXiv:2306.06482). Every channel of an atom holds a
3×3 matrix. It is stored here by nine coefficients in an orthonormal basis of matrices:
one for the trace, three for the antisymmetric part, five for the symmetric traceless
part. Sums over edges then cost nine numbers per channel instead of twenty-seven, and
the squared Frobenius norm is a sum of squares. Matrices are formed on atoms alone,
where they are multiplied.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

SIZES = (1, 3, 5)
"""Coefficients of degree 0, 1 and 2."""


@dataclass(frozen=True)
class TensorNetConfig:
    """The choices of a TensorNet that its published weights need."""

    n_elements: int
    units: int = 128
    n_blocks: int = 2
    n_basis: int = 3
    cutoff_A: float = 5.0
    messages: str = "sender"
    """Whose tensor a message carries: "sender", or "receiver" as in models trained
    with the DGL code, whose sums over neighbors weight the atom's own tensor."""


def matrix_basis() -> Float[Tensor, "9 3 3"]:
    """Return nine matrices with ⟨B_k, B_l⟩ = δ_kl in float64, by degree."""
    basis = torch.zeros(9, 3, 3, dtype=torch.float64)
    basis[0] = torch.eye(3, dtype=torch.float64) / math.sqrt(3)
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        # the matrix of a cross product: [v]ₓ w = v × w
        basis[1 + axis, first, second] = -1 / math.sqrt(2)
        basis[1 + axis, second, first] = 1 / math.sqrt(2)
        basis[4 + axis, first, second] = basis[4 + axis, second, first] = 2**-0.5
    basis[7] = basis.new_tensor([1, -1, 0]).diag() / math.sqrt(2)
    basis[8] = basis.new_tensor([-1, -1, 2]).diag() / math.sqrt(6)
    return basis


def smooth_bessel(
    distance: Float[Tensor, " edge"], n_basis: int, cutoff_A: float
) -> Float[Tensor, "edge basis"]:
    """Return radial functions whose value and two derivatives vanish at the cutoff.

    Kocer, Mason, Erturk, AIP Advances 10, 015021 (2020), as M3GNet uses them: sums of
    two sinc functions, made orthonormal one after the other.
    """
    order = torch.arange(n_basis + 1, dtype=distance.dtype, device=distance.device)
    sinc = torch.sinc(distance.unsqueeze(-1) * (order + 1) / cutoff_A)
    columns: list[Tensor] = []
    last = 1.0
    for n in range(n_basis):
        scale = (-1) ** n * math.sqrt(2) * math.pi / cutoff_A**1.5
        scale *= (n + 1) * (n + 2) / math.sqrt((n + 1) ** 2 + (n + 2) ** 2)
        column = scale * (sinc[:, n] + sinc[:, n + 1])
        if n > 0:
            coupling = n**2 * (n + 2) ** 2 / (4 * (n + 1) ** 4 + 1)
            norm = 1 - coupling / last
            column = column + math.sqrt(coupling / last) * columns[-1]
            column, last = column / math.sqrt(norm), norm
        columns.append(column)
    return torch.stack(columns, dim=-1)


class DegreeLinear(nn.Module):
    """Three linear maps of channels without bias, one for each degree."""

    def __init__(self, units: int) -> None:
        super().__init__()
        bound = units**-0.5
        self.weight = nn.Parameter(torch.empty(3, units, units).uniform_(-bound, bound))

    def forward(
        self, x: Float[Tensor, "atom 9 channel"]
    ) -> Float[Tensor, "atom 9 channel"]:
        """Return the mapped coefficients."""
        parts = x.split(SIZES, dim=1)
        mapped = [part @ w.T for part, w in zip(parts, self.weight, strict=True)]
        return torch.cat(mapped, dim=1)


class Interaction(nn.Module):
    """One round of messages and the products of tensors that follow it."""

    def __init__(self, config: TensorNetConfig) -> None:
        super().__init__()
        units = config.units
        self.radial = nn.ModuleList(
            [
                nn.Linear(config.n_basis, units),
                nn.Linear(units, 2 * units),
                nn.Linear(2 * units, 3 * units),
            ]
        )
        self.before, self.after = DegreeLinear(units), DegreeLinear(units)


class TensorNet(nn.Module):
    """Edges in, energies of atoms and their invariants out."""

    basis: Tensor

    def __init__(self, config: TensorNetConfig) -> None:
        super().__init__()
        units = config.units
        self.config = config
        self.element = nn.Embedding(config.n_elements, units)
        self.pair = nn.Linear(2 * units, units)
        self.distance = nn.ModuleList(
            nn.Linear(config.n_basis, units) for _ in range(3)
        )
        self.embedded = DegreeLinear(units)
        self.embedding_norm = nn.LayerNorm(units)
        self.embedding_scale = nn.ModuleList(
            [nn.Linear(units, 2 * units), nn.Linear(2 * units, 3 * units)]
        )
        self.blocks = nn.ModuleList(Interaction(config) for _ in range(config.n_blocks))
        self.norm = nn.LayerNorm(3 * units)
        self.invariant = nn.Linear(3 * units, units)
        self.value = _readout(units, last=None)
        self.gate = _readout(units, last=nn.Sigmoid())
        self.register_buffer("basis", matrix_basis().flatten(1), persistent=False)

    def forward(
        self,
        vectors: Float[Tensor, "edge 3"],
        senders: Int[Tensor, " edge"],
        receivers: Int[Tensor, " edge"],
        species: Int[Tensor, " atom"],
    ) -> tuple[Float[Tensor, " atom"], Float[Tensor, "atom channel"]]:
        """Return the raw energy of every atom and the 128 invariants before readout.

        Args:
            vectors: sender minus receiver in Å, images included.
            senders: atom that each edge comes from.
            receivers: atom that each edge goes to.
            species: row of the element table for every atom.
        """
        distance = torch.linalg.vector_norm(vectors, dim=-1)
        radial = smooth_bessel(distance, self.config.n_basis, self.config.cutoff_A)
        envelope = 0.5 * (torch.cos(math.pi * distance / self.config.cutoff_A) + 1)
        envelope = envelope.unsqueeze(-1)
        edges = (senders, receivers)
        unit = vectors / distance.unsqueeze(-1)
        x = self._embed(self._tensors_of(unit), radial, envelope, edges, species)
        for block in self.blocks:
            assert isinstance(block, Interaction)  # a ModuleList forgets it
            x = self._interact(block, x, radial, envelope, edges)
        norms = [part.square().sum(dim=1) for part in x.split(SIZES, dim=1)]
        features = self.invariant(self.norm(torch.cat(norms, dim=-1)))
        energy = self.value(features) * self.gate(features)
        return energy.squeeze(-1), features

    def _tensors_of(self, unit: Float[Tensor, "edge 3"]) -> Float[Tensor, "edge 9"]:
        """Return 1, [v]ₓ and v vᵀ − 1/3 of unit vectors in the basis of matrices."""
        outer = (unit.unsqueeze(-1) * unit.unsqueeze(-2)).flatten(1)
        ones = unit.new_full((len(unit), 1), math.sqrt(3))
        return torch.cat([ones, math.sqrt(2) * unit, outer @ self.basis[4:].T], dim=-1)

    def _embed(
        self,
        tensors: Float[Tensor, "edge 9"],
        radial: Float[Tensor, "edge basis"],
        envelope: Float[Tensor, "edge 1"],
        edges: tuple[Tensor, Tensor],
        species: Int[Tensor, " atom"],
    ) -> Float[Tensor, "atom 9 channel"]:
        senders, receivers = edges
        embedding = self.element(species)
        # a linear map of two atoms side by side is the sum of two maps of atoms
        of_sender, of_receiver = self.pair.weight.chunk(2, dim=1)
        pair = (embedding @ of_sender.T).index_select(0, senders)
        pair = pair + (embedding @ of_receiver.T + self.pair.bias).index_select(
            0, receivers
        )
        pair = pair * envelope
        weights = [layer(radial) * pair for layer in self.distance]
        x = _sums(tensors, weights, receivers, len(species))
        scale = self.embedding_norm(x.square().sum(dim=1))
        for layer in self.embedding_scale:
            scale = nn.functional.silu(layer(scale))
        return self.embedded(x) * _per_coefficient(scale, x.shape[-1])

    def _interact(
        self,
        block: Interaction,
        x: Float[Tensor, "atom 9 channel"],
        radial: Float[Tensor, "edge basis"],
        envelope: Float[Tensor, "edge 1"],
        edges: tuple[Tensor, Tensor],
    ) -> Float[Tensor, "atom 9 channel"]:
        senders, receivers = edges
        weight = radial
        for layer in block.radial:
            weight = nn.functional.silu(layer(weight))
        weight = weight * envelope
        x = x / (x.square().sum(dim=1, keepdim=True) + 1)
        y = block.before(x)
        if self.config.messages == "receiver":
            total = weight.new_zeros(len(x), weight.shape[1])
            total = total.index_add(0, receivers, weight)
            message = y * _per_coefficient(total, x.shape[-1])
        else:
            weight = _per_coefficient(weight, x.shape[-1])
            message = y.index_select(0, senders) * weight
            message = torch.zeros_like(y).index_add(0, receivers, message)
        product = self._anticommutator(message, y)
        product = product / (product.square().sum(dim=1, keepdim=True) + 1)
        change = block.after(product)
        return x + change + 0.5 * self._anticommutator(change, change)

    def _anticommutator(
        self,
        first: Float[Tensor, "atom 9 channel"],
        last: Float[Tensor, "atom 9 channel"],
    ) -> Float[Tensor, "atom 9 channel"]:
        """Return the coefficients of AB + BA, which is all of it that O(3) keeps."""
        a, b = self._matrices(first), self._matrices(last)
        product = (a.unsqueeze(3) * b.unsqueeze(1)).sum(dim=2)
        product = product + (b.unsqueeze(3) * a.unsqueeze(1)).sum(dim=2)
        flat = product.flatten(1, 2)  # (atom, 9 entries, channel)
        return self.basis @ flat

    def _matrices(
        self, x: Float[Tensor, "atom 9 channel"]
    ) -> Float[Tensor, "atom 3 3 channel"]:
        return (self.basis.T @ x).unflatten(1, (3, 3))


def _readout(units: int, *, last: nn.Module | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(units, units), nn.SiLU()]
    layers.append(nn.Linear(units, 1))
    return nn.Sequential(*layers, *([] if last is None else [last]))


def _per_coefficient(
    scale: Float[Tensor, "item three_channels"], units: int
) -> Float[Tensor, "item 9 channel"]:
    """Return factors of degrees 0, 1 and 2, side by side, at the nine coefficients."""
    by_degree = scale.unflatten(-1, (3, units))
    return torch.repeat_interleave(
        by_degree, torch.tensor(SIZES, device=scale.device), dim=1, output_size=9
    )


def _sums(
    tensors: Float[Tensor, "edge 9"],
    weights: list[Float[Tensor, "edge channel"]],
    receivers: Int[Tensor, " edge"],
    n_atoms: int,
) -> Float[Tensor, "atom 9 channel"]:
    """Return Σ over the edges of an atom of weight(degree) × tensor."""
    parts = [
        part.unsqueeze(-1) * weight.unsqueeze(1)
        for part, weight in zip(tensors.split(SIZES, dim=1), weights, strict=True)
    ]
    total = weights[0].new_zeros(n_atoms, 9, weights[0].shape[-1])
    return total.index_add(0, receivers, torch.cat(parts, dim=1))
