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
    axes: Float[Tensor, "3 atom"],
    receiver: Float[Tensor, "3 ..."],
    sender: Int[Tensor, " pair"],
    move: Float[Tensor, "3 ..."],
) -> Float[Tensor, "..."]:
    """Return |r_sender + move − r_receiver| of pairs in Å.

    Args:
        axes: x, y and z of all atoms.
        receiver: x, y and z of the receivers.
        sender: index of every sender.
        move: x, y and z of its lattice translation, in the shape of the result.
    """
    squares = []
    for axis, origin, offset in zip(axes, receiver, move, strict=True):
        part = axis.index_select(0, sender).view(offset.shape)
        part -= origin
        part += offset
        part *= part
        squares.append(part)
    return squares[0].add_(squares[1]).add_(squares[2]).sqrt_()


def pair_lengths(
    axes: Float[Tensor, "3 atom"],
    cell: Float[np.ndarray, "3 3"],
    receiver: Int[Tensor, " pair"],
    sender: Int[Tensor, " pair"],
    shift: Int[Tensor, "pair 3"],
) -> Float[Tensor, " pair"]:
    """Return the length of every pair in Å; `axes` are x, y and z of all atoms."""
    move = translations(shift.T.double().contiguous(), cell)
    return lengths(axes, axes.index_select(1, receiver), sender, move)
