"""Distances by hand, and the bits on which ties depend."""

import numpy as np

from crack_md.neighbors.distances import pair_lengths

SKEWED = np.array([[3.0, 0.0, 0.0], [1.0, 4.0, 0.0], [0.5, -1.0, 5.0]])


def test_length_of_a_pair_across_the_cell():
    positions = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    # 1 + 2·3 − 1, −4, 0
    found = pair_lengths(
        positions, SKEWED, np.array([0]), np.array([1]), np.array([[2, -1, 0]])
    )
    assert found.tolist() == [np.sqrt(6**2 + 4**2)]


def test_both_directions_of_a_pair_have_the_same_bits():
    generator = np.random.default_rng(0)
    positions = generator.normal(scale=9.0, size=(20, 3))
    receiver, sender = generator.integers(0, 20, size=(2, 400))
    shift = generator.integers(-2, 3, size=(400, 3))
    forth = pair_lengths(positions, SKEWED, receiver, sender, shift)
    back = pair_lengths(positions, SKEWED, sender, receiver, -shift)
    np.testing.assert_array_equal(forth, back)
