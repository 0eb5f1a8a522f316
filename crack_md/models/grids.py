"""Functions on a grid of the sphere: there, a non-linearity, and back."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from crack_md.models.so3 import FloatArray, grid_maps, separated_grid_maps

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
