"""Layer norms: equal to PyTorch's, and right where that one is wrong."""

import torch
from torch import Tensor

from crack_md.models.layers import LayerNorm, set_any_order


def norm_of(*, any_order: bool) -> LayerNorm:
    norm = LayerNorm(6).double()
    torch.manual_seed(1)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    set_any_order(torch.nn.Sequential(norm), any_order)
    return norm


def test_both_ways_give_the_same_values() -> None:
    x = torch.randn(4, 6, dtype=torch.float64)
    quick, exact = norm_of(any_order=False), norm_of(any_order=True)
    torch.testing.assert_close(exact(x), quick(x))


def test_third_derivative_is_the_slope_of_the_second() -> None:
    norm = norm_of(any_order=True)
    x, a, b, move = torch.randn(4, 4, 6, dtype=torch.float64).unbind()

    def second(at: Tensor) -> Tensor:
        (first,) = torch.autograd.grad((norm(at) ** 2).sum(), at, create_graph=True)
        (slope,) = torch.autograd.grad((first * a).sum(), at, create_graph=True)
        return (slope * b).sum()

    x.requires_grad_()
    (third,) = torch.autograd.grad(second(x), x)
    ahead, behind = (
        second((x + sign * 1e-5 * move).detach().requires_grad_()) for sign in (1, -1)
    )
    torch.testing.assert_close((third * move).sum(), (ahead - behind) / 2e-5)


def test_exact_norm_is_never_in_bfloat16() -> None:
    norm = norm_of(any_order=True).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(torch.randn(3, 6, dtype=torch.bfloat16)).dtype == torch.float32
