import math

import numpy as np
import pytest
import torch

from crack_md.models.so3 import (
    SEAM_COSINE,
    couplings,
    edge_frames,
    edge_rotations,
    grid_maps,
    order_major_index,
    real_harmonics,
    separated_grid_maps,
    sphere_grid,
    truncation_scale,
    wigner_blocks,
)

LMAX = 6
AXES = torch.cat([torch.eye(3), -torch.eye(3)]).double()


def rotations(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(
        torch.randn(n, 3, 3, dtype=torch.float64, generator=generator)
    )
    return q * torch.linalg.det(q)[:, None, None]


def blocks_of(matrices: torch.Tensor, lmax: int = LMAX) -> list[torch.Tensor]:
    return wigner_blocks(matrices, [c.to(matrices) for c in couplings(lmax)])


def harmonics(directions: np.ndarray) -> np.ndarray:
    alpha = np.arctan2(directions[:, 0], directions[:, 2])
    return real_harmonics(LMAX, directions[:, 1], alpha)


def directions(n: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_first_degrees_are_the_textbook_polynomials() -> None:
    x, y, z = directions(5).T
    values = harmonics(directions(5))
    one = math.sqrt(3 / (4 * math.pi))
    two = math.sqrt(15 / (4 * math.pi))
    np.testing.assert_allclose(values[:, 0], math.sqrt(1 / (4 * math.pi)))
    np.testing.assert_allclose(values[:, 1:4], one * np.stack([x, y, z], axis=1))
    np.testing.assert_allclose(values[:, 4], two * x * z)
    np.testing.assert_allclose(values[:, 5], two * x * y)
    np.testing.assert_allclose(values[:, 7], two * y * z)
    np.testing.assert_allclose(values[:, 8], two * (z**2 - x**2) / 2)


def test_grid_weights_integrate_harmonics_exactly() -> None:
    cos_beta, alpha, weight = sphere_grid(14, 14)
    values = real_harmonics(LMAX, cos_beta, alpha)
    overlap = 4 * math.pi * (values.T * weight) @ values
    np.testing.assert_allclose(overlap, np.eye((LMAX + 1) ** 2), atol=1e-13)


def test_wigner_blocks_rotate_harmonics() -> None:
    matrices = rotations(3)
    blocks = blocks_of(matrices)
    points = directions(7)
    for index, matrix in enumerate(matrices.numpy()):
        rotated = harmonics(points @ matrix.T)
        for degree in range(LMAX + 1):
            span = slice(degree**2, (degree + 1) ** 2)
            expected = harmonics(points)[:, span] @ blocks[degree][index].numpy().T
            np.testing.assert_allclose(rotated[:, span], expected, atol=1e-12)


def test_wigner_matrices_of_products_are_products() -> None:
    first, second = rotations(2)[:1], rotations(2)[1:]
    for degree in range(LMAX + 1):
        left = blocks_of(first @ second)[degree]
        right = blocks_of(first)[degree] @ blocks_of(second)[degree]
        torch.testing.assert_close(left, right, atol=1e-12, rtol=0)


@pytest.mark.parametrize("vectors", [AXES, torch.from_numpy(directions(200))])
def test_frames_turn_edges_onto_y_at_the_poles_too(vectors: torch.Tensor) -> None:
    frames = edge_frames(2.7 * vectors)
    turned = (frames @ vectors.unsqueeze(-1)).squeeze(-1)
    expected = torch.tensor([0.0, 1.0, 0.0]).double().expand_as(turned)
    torch.testing.assert_close(turned, expected, atol=1e-12, rtol=0)
    product = frames @ frames.transpose(-1, -2)
    torch.testing.assert_close(product, torch.eye(3).double().expand_as(product))
    torch.testing.assert_close(
        torch.linalg.det(frames), torch.ones(len(vectors)).double()
    )


def test_frames_jump_at_the_seam_and_nowhere_else() -> None:
    polar = torch.linspace(0.001, math.pi - 0.001, 20001).double()
    arc = torch.stack([polar.sin(), polar.cos(), 0 * polar], dim=-1)
    steps = (edge_frames(arc[1:]) - edge_frames(arc[:-1])).abs().amax(dim=(1, 2))
    jumps = torch.nonzero(steps > 0.01).flatten()
    assert len(jumps) == 1
    assert abs(arc[jumps[0], 1] - SEAM_COSINE) < 1e-3


def test_frames_have_gradients_at_the_poles() -> None:
    vectors = AXES.clone().requires_grad_()
    assert torch.autograd.gradcheck(edge_frames, vectors)


def test_grid_maps_invert_each_other_up_to_truncation() -> None:
    to_grid, from_grid = grid_maps(4, None, 14)
    np.testing.assert_allclose(from_grid @ to_grid, np.eye(25), atol=1e-12)
    to_grid, from_grid = grid_maps(4, 2, 14)
    scale = np.array(truncation_scale(4, 2))[order_major_index(4, 2)]
    np.testing.assert_allclose(from_grid @ to_grid, np.diag(scale**2), atol=1e-12)


@pytest.mark.parametrize(("mmax", "resolution"), [(3, 18), (2, 8), (1, 14), (6, 14)])
def test_separated_maps_are_the_same_maps(mmax: int, resolution: int) -> None:
    to_grid, from_grid = grid_maps(LMAX, mmax, resolution)
    maps = separated_grid_maps(LMAX, mmax, resolution)
    to_beta, to_alpha, from_alpha, from_beta = maps
    orders = (2 * mmax + 1, resolution)
    there = np.einsum("ao,obk->bak", to_alpha, to_beta.reshape(*orders, -1))
    np.testing.assert_allclose(there.reshape(to_grid.shape), to_grid, atol=1e-14)
    back = np.einsum("kob,oa->kba", from_beta.reshape(-1, *orders), from_alpha)
    np.testing.assert_allclose(back.reshape(from_grid.shape), from_grid, atol=1e-14)


def test_order_major_index_lists_plus_before_minus() -> None:
    assert order_major_index(2, 2) == [0, 2, 6, 3, 7, 1, 5, 8, 4]
    assert order_major_index(2, 1) == [0, 2, 6, 3, 7, 1, 5]


def test_edge_rotations_are_truncated_wigner_matrices() -> None:
    matrices = rotations(2)
    full = torch.block_diag(*(block[1] for block in blocks_of(matrices, 3)))
    expected = full[order_major_index(3, 2)]
    torch.testing.assert_close(
        edge_rotations(blocks_of(matrices, 3), torch.tensor(order_major_index(3, 2)))[
            1
        ],
        expected,
    )
