"""Rotations of real spherical harmonics, and functions on a grid of the sphere.

Coefficients are kept in two orders. *Degree order* is what nodes carry: l ascending,
then m from −l to l, ``index = l² + l + m``. *Order-major* ("m-major") is what edges
carry: all m = 0, then +1, then −1, then +2 …, cut at |m| ≤ mmax, so that the SO(2)
convolutions read contiguous blocks. The Wigner matrices of `edge_rotations` go from one
to the other, so no permutation is ever carried out.

The real harmonics have y as polar axis and no Condon–Shortley phase: for l = 1 they are
(x, y, z), so the l = 1 Wigner block is the rotation matrix itself.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

FloatArray = NDArray[np.float64]

SEAM_COSINE = -0.95
"""Where the frame field jumps: the circle on which an edge has y/|r| = −0.95.

No field of frames is continuous on the whole sphere. A circle at an odd angle is never
met by the edges of an ideal crystal in its usual setting, as ±x, ±y, ±z would be.
"""


def degrees(lmax: int) -> list[int]:
    """Return l of every coefficient in degree order."""
    return [degree for degree in range(lmax + 1) for _ in range(2 * degree + 1)]


def order_major_index(lmax: int, mmax: int) -> list[int]:
    """Return the degree-order index of every coefficient in order-major order."""
    index = [degree * degree + degree for degree in range(lmax + 1)]
    for order in range(1, mmax + 1):
        for signed in (order, -order):
            index += [d * d + d + signed for d in range(order, lmax + 1)]
    return index


def truncation_scale(lmax: int, mmax: int) -> list[float]:
    """Return √((2l+1)/(2·mmax+1)) for l > mmax, else 1, in degree order.

    It makes up for the variance of the orders that are cut away.
    """
    return [
        math.sqrt((2 * degree + 1) / (2 * mmax + 1)) if degree > mmax else 1.0
        for degree in degrees(lmax)
    ]


def edge_frames(vectors: Float[Tensor, "*edge 3"]) -> Float[Tensor, "*edge 3 3"]:
    """Return for every edge the rotation that turns it onto +y.

    The shortest rotation (Rodrigues), with the edge first turned by π about x where it
    points almost along −y. Deterministic and differentiable off the seam.

    Args:
        vectors: edge vectors in Å, none of them zero.
    """
    direction = vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    x, y, z = direction.unbind(dim=-1)
    sign = torch.where(y < SEAM_COSINE, -1.0, 1.0).to(y.dtype)
    y, z = y * sign, z * sign
    inverse = 1 / (1 + y)
    rows = [1 - x * x * inverse, -x, -x * z * inverse]
    rows += [x, y, z]
    rows += [-x * z * inverse, -z, 1 - z * z * inverse]
    rotation = torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
    sign = sign[..., None, None]
    return torch.cat([rotation[..., :1], rotation[..., 1:] * sign], dim=-1)


def couplings(lmax: int) -> list[Tensor]:
    """Return C of degrees 2 … lmax in float64, for `wigner_blocks`."""
    return [torch.from_numpy(_top_coupling(d)) for d in range(2, lmax + 1)]


def wigner_blocks(
    rotations: Float[Tensor, "edge 3 3"], given: Sequence[Tensor]
) -> list[Float[Tensor, "edge _ _"]]:
    """Return the Wigner matrices of degrees 0 … lmax of real harmonics.

    Degree l is the top part of the product of degrees l − 1 and 1,
    ``D_l = C_l (D_{l−1} ⊗ R) C_lᵀ``: a polynomial of the rotation matrix, with a
    gradient everywhere, where Euler angles have none at the poles.

    Args:
        rotations: of the edges.
        given: `couplings` of the degrees from 2 on, on the device of the rotations.
    """
    blocks = [torch.ones_like(rotations[:, :1, :1]), rotations]
    for coupling in given:
        lower = blocks[-1]
        # C (D ⊗ R) Cᵀ as two products, smallest intermediates first:
        # (m, a, b) · (edge, a, c) → (edge, m, b, c) → · (edge, b, d) → (edge, m, c, d)
        left = torch.einsum("mab,eac->embc", coupling, lower)
        both = torch.einsum("embc,ebd->emcd", left, rotations)
        blocks.append(torch.einsum("emcd,ncd->emn", both, coupling))
    return blocks


def edge_rotations(
    blocks: Sequence[Float[Tensor, "edge _ _"]], order: Int[Tensor, " reduced"]
) -> Float[Tensor, "edge reduced coefficient"]:
    """Return Wigner matrices from degree order to truncated order-major order.

    Args:
        blocks: those of degrees 0 … lmax.
        order: `order_major_index`, on the device of the blocks.
    """
    size = len(blocks) ** 2
    wigner = blocks[0].new_zeros(blocks[0].shape[0], size, size)
    for degree, block in enumerate(blocks):
        span = slice(degree**2, (degree + 1) ** 2)
        wigner[:, span, span] = block
    return wigner.index_select(1, order)


def real_harmonics(
    lmax: int, cos_beta: FloatArray, alpha: FloatArray
) -> NDArray[np.float64]:
    """Return orthonormal real harmonics Y, one row a direction, in degree order.

    Args:
        lmax: highest degree.
        cos_beta: cosine of the angle to the y axis.
        alpha: azimuth, with x = sin β sin α and z = sin β cos α, in radians.
    """
    sin_beta = np.sqrt(1 - cos_beta**2)
    harmonics = np.empty((len(cos_beta), (lmax + 1) ** 2))
    diagonal = np.full_like(cos_beta, math.sqrt(1 / (4 * math.pi)))  # P_mm, normalised
    for order in range(lmax + 1):
        if order:
            diagonal = diagonal * sin_beta * math.sqrt((2 * order + 1) / (2 * order))
        below, legendre = np.zeros_like(diagonal), diagonal
        for degree in range(order, lmax + 1):
            if degree > order:
                gap = degree**2 - order**2
                up = math.sqrt((4 * degree**2 - 1) / gap)
                last = (degree - 1) ** 2
                down = math.sqrt((last - order**2) / (4 * last - 1))
                below, legendre = legendre, up * (cos_beta * legendre - down * below)
            center = degree**2 + degree
            factor = math.sqrt(2) if order else 1.0
            harmonics[:, center + order] = factor * legendre * np.cos(order * alpha)
            if order:
                harmonics[:, center - order] = factor * legendre * np.sin(order * alpha)
    return harmonics


def sphere_grid(n_beta: int, n_alpha: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return cos β, α and weight of an n_beta × n_alpha grid; weights sum to 1.

    Fejér's first rule in β: exact for polynomials of degree < n_beta.
    """
    beta = (np.arange(n_beta) + 0.5) * math.pi / n_beta
    k = np.arange(1, n_beta // 2 + 1)[:, None]
    series = (np.cos(2 * k * beta) / (4 * k**2 - 1)).sum(axis=0)
    weight = (1 - 2 * series) / n_beta  # half of ∫ sin β dβ
    alpha = np.arange(n_alpha) * 2 * math.pi / n_alpha
    cos_beta = np.repeat(np.cos(beta), n_alpha)
    return cos_beta, np.tile(alpha, n_beta), np.repeat(weight / n_alpha, n_alpha)


@lru_cache
def grid_maps(
    lmax: int, mmax: int | None, resolution: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the matrices coefficients → grid and grid → coefficients.

    Normalised so that unit-variance coefficients give a unit-variance signal.

    Args:
        lmax: highest degree.
        mmax: highest order of order-major coefficients; None for degree order.
        resolution: points of the grid in each angle; even.
    """
    cos_beta, alpha, weight = sphere_grid(resolution, resolution)
    harmonics = real_harmonics(lmax, cos_beta, alpha)
    degree = np.array(degrees(lmax))
    norm = math.sqrt(4 * math.pi / (lmax + 1)) / np.sqrt(2 * degree + 1)
    to_grid = harmonics * norm
    from_grid = (harmonics * (4 * math.pi / norm)).T * weight
    if mmax is None:
        return to_grid, from_grid
    index = order_major_index(lmax, mmax)
    scale = np.array(truncation_scale(lmax, mmax))[index]
    return to_grid[:, index] * scale, from_grid[index] * scale[:, None]


@lru_cache
def separated_grid_maps(
    lmax: int, mmax: int, resolution: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return `grid_maps` of order-major coefficients as products over both angles.

    A harmonic is a function of β times cos mα or sin mα, so the sum over degrees comes
    first, then that over the few orders: a third of the multiplications.

    Returns:
        coefficients → (order, β), order → α, α → order, (order, β) → coefficients.
    """
    to_grid, from_grid = grid_maps(lmax, mmax, resolution)
    alpha = np.arange(resolution) * 2 * math.pi / resolution
    waves = [np.ones(resolution)]
    for order in range(1, mmax + 1):
        waves += [np.cos(order * alpha), np.sin(order * alpha)]
    wave = np.stack(waves)  # (order, α), orthogonal rows
    project = wave / np.square(wave).sum(axis=1, keepdims=True)
    n_coefficients = to_grid.shape[1]
    grid = to_grid.reshape(resolution, resolution, n_coefficients)
    to_beta = np.einsum("bak,oa->obk", grid, project).reshape(-1, n_coefficients)
    grid = from_grid.reshape(n_coefficients, resolution, resolution)
    from_beta = np.einsum("kba,oa->kob", grid, project).reshape(n_coefficients, -1)
    return to_beta, wave.T.copy(), wave, from_beta


@lru_cache
def _top_coupling(degree: int) -> NDArray[np.float64]:
    """Return the isometry from degree l to the product of degrees l − 1 and 1.

    The integrals of three harmonics are proportional to it, and the grid is exact for
    their product, so no table of Clebsch–Gordan coefficients is needed.
    """
    cos_beta, alpha, weight = sphere_grid(4 * degree, 4 * degree + 3)
    harmonics = real_harmonics(degree, cos_beta, alpha)
    top = harmonics[:, degree**2 :]
    lower = harmonics[:, (degree - 1) ** 2 : degree**2]
    vector = harmonics[:, 1:4]
    gaunt = np.einsum("g,gm,ga,gb->mab", weight, top, lower, vector)
    norm: NDArray[np.float64] = np.sqrt((gaunt**2).sum(axis=(1, 2), keepdims=True))
    return gaunt / norm


Pointwise = Callable[[Tensor], Tensor]

GRID_BYTES = 4 << 20
"""What values on grids may take at a time on a CPU, to be there still when read."""


class GridMap(nn.Module):
    """Constant matrices between coefficients and values on a grid of the sphere.

    Args:
        lmax: highest degree.
        mmax: highest order of order-major coefficients; None for degree order.
        resolution: points of the grid in each angle; even.
    """

    to_grid: Tensor
    from_grid: Tensor

    def __init__(self, lmax: int, mmax: int | None, resolution: int) -> None:
        super().__init__()
        to_grid, from_grid = grid_maps(lmax, mmax, resolution)
        self.register_buffer("to_grid", _constant(to_grid), persistent=False)
        self.register_buffer("from_grid", _constant(from_grid), persistent=False)

    def forward(
        self, x: Float[Tensor, "row coefficient channel"], pointwise: Pointwise
    ) -> Float[Tensor, "row coefficient channel"]:
        """Return coefficients after ``pointwise`` has acted on the grid."""
        return torch.matmul(self.from_grid, pointwise(torch.matmul(self.to_grid, x)))


class SeparatedGridMap(nn.Module):
    """The same for order-major coefficients, one angle after the other."""

    to_beta: Tensor
    to_alpha: Tensor
    from_alpha: Tensor
    from_beta: Tensor

    def __init__(self, lmax: int, mmax: int, resolution: int) -> None:
        super().__init__()
        names = ["to_beta", "to_alpha", "from_alpha", "from_beta"]
        maps = separated_grid_maps(lmax, mmax, resolution)
        for name, matrix in zip(names, maps, strict=True):
            self.register_buffer(name, _constant(matrix), persistent=False)
        self.rows = (2 * mmax + 1, resolution)

    def forward(
        self, x: Float[Tensor, "row coefficient channel"], pointwise: Pointwise
    ) -> Float[Tensor, "row coefficient channel"]:
        """Return coefficients after ``pointwise`` has acted on the grid.

        It acts on (row, α, β · channel): it must treat all numbers alike.
        """
        n_rows = self._rows_at_once(x)
        if n_rows >= x.shape[0]:
            return self._once(x, pointwise)
        out = torch.empty_like(x)
        for part, place in zip(x.split(n_rows), out.split(n_rows), strict=True):
            place.copy_(self._once(part, pointwise))
        return out

    def _rows_at_once(self, x: Float[Tensor, "row coefficient channel"]) -> int:
        """Return for how many rows the grids exist at a time."""
        if x.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return x.shape[0]
        row = self.rows[1] ** 2 * x.shape[2] * x.dtype.itemsize
        return max(1, GRID_BYTES // row)

    def _once(
        self, x: Float[Tensor, "row coefficient channel"], pointwise: Pointwise
    ) -> Float[Tensor, "row coefficient channel"]:
        orders = torch.matmul(self.to_beta, x).unflatten(1, self.rows).flatten(2)
        values = pointwise(torch.matmul(self.to_alpha, orders))
        orders = torch.matmul(self.from_alpha, values)
        flat = orders.unflatten(2, (self.rows[1], x.shape[2])).flatten(1, 2)
        return torch.matmul(self.from_beta, flat)


def grid_map(
    lmax: int, mmax: int | None, resolution: int
) -> GridMap | SeparatedGridMap:
    """Return the map with fewer multiplications; arguments as of `GridMap`."""
    if mmax is not None:
        to_grid, _ = grid_maps(lmax, mmax, resolution)
        to_beta, to_alpha, _, _ = separated_grid_maps(lmax, mmax, resolution)
        if to_beta.size + resolution * to_alpha.size < to_grid.size:
            return SeparatedGridMap(lmax, mmax, resolution)
    return GridMap(lmax, mmax, resolution)


def _constant(matrix: FloatArray) -> Tensor:
    return torch.as_tensor(matrix, dtype=torch.get_default_dtype())


def silu_once(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return SiLU, in place where nothing is differentiated: a grid is large."""
    return functional.silu(x, inplace=not torch.is_grad_enabled())


class SiLUOnce(nn.Module):
    """The same as a module."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return SiLU of all numbers."""
        return silu_once(x)
