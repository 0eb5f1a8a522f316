"""Spherical harmonics of edges, and invariants of products of densities.

Both know even products only (l₁ + l₂ + L even), so nothing here tells a structure from
its mirror image.
"""

import functools
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from crack_md.models.precision import ExactConstants
from crack_md.models.so3 import couplings, degrees, real_harmonics, sphere_grid

LARGE = 1.0
"""Mean square beyond which a density grows no more."""


class Harmonics(ExactConstants):
    """Real harmonics of degrees 0 … lmax as polynomials of a unit vector.

    The mean square of each over the sphere is 1; order and axes are those of `so3`.
    """

    def __init__(self, lmax: int) -> None:
        super().__init__()
        self.lmax = lmax
        for degree, coupling in enumerate(couplings(lmax), start=2):
            # Y_l ~ C_l (Y_{l-1} ⊗ v): normalised on the pole, where one order is left
            lower = torch.zeros(2 * degree - 1, 3, dtype=torch.float64)
            lower[degree - 1, 1] = (2 * degree - 1) ** 0.5
            top = torch.einsum("mab,ab->m", coupling, lower).norm()
            matrix = coupling.flatten(1).T * ((2 * degree + 1) ** 0.5 / top)
            self.keep(f"step_{degree}", matrix)

    def forward(
        self, directions: Float[Tensor, "edge 3"]
    ) -> Float[Tensor, "edge coefficient"]:
        """Return the harmonics of unit vectors."""
        blocks = [torch.ones_like(directions[:, :1]), directions * 3**0.5]
        for degree in range(2, self.lmax + 1):
            outer = blocks[-1].unsqueeze(-1) * directions.unsqueeze(-2)
            blocks.append(outer.flatten(1) @ getattr(self, f"step_{degree}"))
        return torch.cat(blocks[: self.lmax + 1], dim=-1)


class DensityProducts(ExactConstants):
    """Invariants of one to four factors of a density, channel by channel.

    Two densities couple to degree L by Gaunt coefficients, (AA)_L of every pair of
    degrees. A linear map of channels and pairs makes G_L of them. The invariants of an
    atom are A₀, every (AA)₀, and the scalar products A·G and G·G of each degree: of 1,
    2, 3 and 4 neighbors around it, up to five bodies.

    Args:
        lmax: highest degree of the density, and of G.
        channels: of the density.
    """

    pairs: Tensor
    gather: Tensor
    norms: Tensor
    path_of_row: Tensor
    unrolled = False
    """Whether products that vanish are left out: hundreds of operations, for a compiler
    that makes one loop of them (`unroll`)."""

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        self.lmax = lmax
        pairs, paths = gaunt_pairs(lmax)
        n_paths = len(set(paths))
        self.n_scalar_paths = lmax + 1
        self.mix = nn.Parameter(torch.randn(n_paths, channels, channels))
        with torch.no_grad():
            self.mix.mul_(channels**-0.5)
        self.keep("pairs", torch.from_numpy(pairs))
        self.register_buffer("path_of_row", torch.tensor(paths), persistent=False)
        degree = torch.tensor(degrees(lmax), device="cpu")
        gather = torch.from_numpy(_rows_to_coefficients(lmax, paths))
        self.keep("gather", gather)
        one_hot = nn.functional.one_hot(degree).T.double()
        self.keep("norms", one_hot / one_hot.sum(dim=1, keepdim=True) ** 0.5)

    @property
    def per_channel(self) -> int:
        """Return the number of invariants of each channel."""
        return 1 + 3 * self.n_scalar_paths

    def forward(
        self, density: Float[Tensor, "coefficient atom channel"]
    ) -> Float[Tensor, "atom invariant"]:
        """Return the invariants of every atom."""
        if self.unrolled:
            return self._unrolled(density)
        size, n_atoms, channels = density.shape
        flat = density.reshape(size, -1)
        outer = (flat.unsqueeze(0) * flat.unsqueeze(1)).flatten(0, 1)
        coupled = self.pairs @ outer  # (row of a path, atom · channel)
        weights = self.mix.index_select(0, self.path_of_row)
        mixed = torch.bmm(coupled.view(-1, n_atoms, channels), weights)
        again = self.gather @ mixed.flatten(1)
        again = bounded(again.view(density.shape)).flatten(1)  # G
        dots = self.norms @ torch.cat([flat * again, again * again], dim=1)
        parts = [flat[:1], coupled[: self.n_scalar_paths], dots.view(-1, flat.shape[1])]
        rows = torch.cat(parts).view(-1, n_atoms, channels)
        return rows.transpose(0, 1).flatten(1)

    def _unrolled(
        self, density: Float[Tensor, "coefficient atom channel"]
    ) -> Float[Tensor, "atom invariant"]:
        """Return the same from the few products that do not vanish."""
        rows = density.unbind(0)
        coupled = [
            torch.stack([_summed(terms, rows) for terms in order], dim=-2)
            for order in pair_terms(self.lmax)
        ]  # of every (L, M): (atom, path, channel)
        first = 0
        parts = []
        for degree in range(self.lmax + 1):
            orders = coupled[degree**2 : (degree + 1) ** 2]
            n_paths = orders[0].shape[-2]
            weight = self.mix[first : first + n_paths].flatten(0, 1) * n_paths**-0.5
            first += n_paths
            parts.append(torch.stack(orders).flatten(2) @ weight)
        again = bounded(torch.cat(parts)).unbind(0)
        invariants = [rows[0].unsqueeze(1), coupled[0]]
        for degree in range(self.lmax + 1):
            span = range(degree**2, (degree + 1) ** 2)
            for one in (rows, again):
                products = [one[k] * again[k] for k in span]
                dot = functools.reduce(torch.add, products) * len(span) ** -0.5
                invariants.append(dot.unsqueeze(1))
        return torch.cat(invariants, dim=1).flatten(1)


def unroll(module: nn.Module) -> None:
    """Let the products of densities inside a module be written out, for a compiler."""
    for part in module.modules():
        if isinstance(part, DensityProducts):
            part.unrolled = True


Term = tuple[float, int, int]
"""A factor, and two coefficients that it multiplies."""


def _summed(
    terms: list[Term], rows: tuple[Float[Tensor, "atom channel"], ...]
) -> Float[Tensor, "atom channel"]:
    products = [factor * rows[one] * rows[other] for factor, one, other in terms]
    return functools.reduce(torch.add, products)


@lru_cache
def pair_terms(lmax: int) -> list[list[list[Term]]]:
    """Return the terms of `gaunt_pairs` for every (L, M), path by path."""
    pairs, paths = gaunt_pairs(lmax)
    size = (lmax + 1) ** 2
    matrices = pairs.reshape(-1, size, size)
    both = np.triu(matrices + matrices.transpose(0, 2, 1))
    index = np.arange(size)
    both[:, index, index] /= 2
    orders: list[list[list[Term]]] = [[] for _ in range(size)]
    start = 0
    for path in sorted(set(paths)):
        width = paths.count(path)
        for order in range(width):
            matrix = both[start + order]
            terms = [
                (float(matrix[a, b]), int(a), int(b))
                for a, b in zip(*matrix.nonzero(), strict=True)
            ]
            orders[(width // 2) ** 2 + order].append(terms)
        start += width
    return orders


def bounded(
    density: Float[Tensor, "coefficient atom channel"],
) -> Float[Tensor, "coefficient atom channel"]:
    """Return the density divided by √(1 + its mean square), atom by atom.

    Products of four factors would explode where atoms are crowded.
    """
    power = density.square().mean(dim=(0, 2))
    return density * torch.rsqrt(1 + power / LARGE).unsqueeze(-1)


@lru_cache
def gaunt_pairs(lmax: int) -> tuple[NDArray[np.float64], list[int]]:
    """Return (row, l₁m₁ · l₂m₂) couplings of pairs, and the path of each row.

    Paths (L, l₁ ≤ l₂) ascend in L; the rows of one are its orders. Random densities of
    unit variance give rows of unit variance.
    """
    cos_beta, alpha, weight = sphere_grid(4 * lmax + 2, 4 * lmax + 3)
    harmonics = real_harmonics(lmax, cos_beta, alpha) * np.sqrt(4 * np.pi)
    gaunt = np.einsum("g,gm,ga,gb->mab", weight, harmonics, harmonics, harmonics)
    rows, paths, path = [], [], 0
    for total in range(lmax + 1):
        for first in range(lmax + 1):
            for second in range(first, lmax + 1):
                if (first + second + total) % 2 or not (
                    second - first <= total <= second + first
                ):
                    continue
                block = np.zeros((2 * total + 1, *gaunt.shape[1:]))
                cut = [slice(d**2, (d + 1) ** 2) for d in (total, first, second)]
                block[:, cut[1], cut[2]] = gaunt[tuple(cut)]
                block[np.abs(block) < 1e-12] = 0
                norm = np.sqrt(np.square(block).sum(axis=(1, 2)).mean())
                rows.append(block.reshape(2 * total + 1, -1) / norm)
                paths += [path] * (2 * total + 1)
                path += 1
    return np.concatenate(rows), paths


def _rows_to_coefficients(lmax: int, paths: list[int]) -> NDArray[np.float64]:
    """Return the matrix that adds the paths to each degree, L ascending."""
    sizes = [paths.count(path) for path in sorted(set(paths))]
    matrix = np.zeros(((lmax + 1) ** 2, len(paths)))
    start = 0
    for size in sizes:
        degree = (size - 1) // 2
        for order in range(size):
            matrix[degree**2 + order, start + order] = sizes.count(size) ** -0.5
        start += size
    return matrix
