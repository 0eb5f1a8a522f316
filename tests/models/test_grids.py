"""Activations on grids of the sphere."""

import pytest
import torch

from crack_md.models import so3
from crack_md.models.so3 import GridMap, SeparatedGridMap, grid_map


def test_the_cheaper_of_two_maps_is_taken() -> None:
    assert isinstance(grid_map(6, 3, 18), SeparatedGridMap)
    assert isinstance(grid_map(6, None, 18), GridMap)


def test_rows_may_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Separated and cut into parts, the map is that of the dense matrices."""
    separated = SeparatedGridMap(3, 2, 10).double()
    dense = GridMap(3, 2, 10).double()
    x = torch.randn(11, 14, 5, generator=torch.Generator().manual_seed(0)).double()
    asked = []

    def square(values: torch.Tensor) -> torch.Tensor:
        asked.append(len(values))
        return values.square()

    with torch.no_grad():
        expected = dense(x, torch.square)
        monkeypatch.setattr(so3, "GRID_BYTES", 3 * 10 * 10 * 5 * 8)
        found = separated(x, square)
    assert asked == [3, 3, 3, 2]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_gradients_see_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(so3, "GRID_BYTES", 1)
    asked = []
    x = torch.randn(4, 14, 2)
    SeparatedGridMap(3, 2, 10)(x, lambda values: asked.append(len(values)) or values)
    assert asked == [4]
