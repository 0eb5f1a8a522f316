"""The one formula of a distance, from which every table is ordered.

Ties at the cut are broken by distances rounded to `RESOLUTION`, so two ways to a table
agree on every bit only if they round the same numbers. Products and sums are taken one
by one, since a fused multiply-add, a matrix product or a reciprocal would round
otherwise on another device.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

STEPS_PER_A = 1e5
"""Steps of `RESOLUTION` in one Å: exact in floating point, which 1e-5 is not."""


def translations(
    shift: Float[Tensor, "3 ..."], cell: Float[np.ndarray, "3 3"]
) -> Float[Tensor, "3 ..."]:
    """Return whole lattice translations in Å; the first axis is x, y, z."""
    rows = cell.tolist()
    return torch.stack(
        [
            shift[0] * rows[0][axis]
            + shift[1] * rows[1][axis]
            + shift[2] * rows[2][axis]
            for axis in range(3)
        ]
    )


def lengths(
    receiver: Float[Tensor, "3 ..."],
    sender: Float[Tensor, "3 ..."],
    move: Float[Tensor, "3 ..."],
) -> Float[Tensor, "..."]:
    """Return |r_sender + move − r_receiver| in Å; the first axis is x, y, z."""
    squares = sender - receiver
    squares += move
    squares *= squares
    return (squares[0] + squares[1]).add_(squares[2]).sqrt_()


def pair_lengths(
    positions: Float[np.ndarray, "atom 3"],
    cell: Float[np.ndarray, "3 3"],
    receiver: Int[np.ndarray, " pair"],
    sender: Int[np.ndarray, " pair"],
    shift: Int[np.ndarray, "pair 3"],
) -> Float[np.ndarray, " pair"]:
    """Return the length of every pair in Å."""
    axes = torch.from_numpy(positions.T.copy())  # (3, atom)
    move = translations(torch.from_numpy(shift.T.astype(float)), cell)
    near, far = (
        axes.index_select(1, torch.from_numpy(index)) for index in (receiver, sender)
    )
    return lengths(near, far, move).numpy()
