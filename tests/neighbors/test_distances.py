"""Distances by hand, and the bits on which ties depend."""

import numpy as np
import torch

from crack_md.neighbors.search import pair_lengths

SKEWED = np.array([[3.0, 0.0, 0.0], [1.0, 4.0, 0.0], [0.5, -1.0, 5.0]])


def test_length_of_a_pair_across_the_cell():
    axes = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    # 1 + 2·3 − 1, −4, 0
    pair = torch.tensor([0]), torch.tensor([1]), torch.tensor([[2, -1, 0]])
    assert pair_lengths(axes, SKEWED, *pair).tolist() == [np.sqrt(6**2 + 4**2)]


def test_both_directions_of_a_pair_have_the_same_bits():
    axes = 9.0 * torch.randn(3, 20, dtype=torch.float64)
    receiver, sender = torch.randint(20, (2, 400))
    shift = torch.randint(-2, 3, (400, 3))
    forth = pair_lengths(axes, SKEWED, receiver, sender, shift)
    back = pair_lengths(axes, SKEWED, sender, receiver, -shift)
    assert torch.equal(forth, back)
