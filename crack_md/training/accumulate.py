"""Exact means over batches that come in parts, where memory is too short for the whole.

A mean over the pairs or free atoms of a batch is no mean of the parts' means: parts
hold different numbers of them. So the terms first count, without the student, over how
many items they average; then each part is divided by the number of the whole batch.
Terms ask for that number where they ask for the average over processes.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from crack_md.training.losses import Ranks


class Tally:
    """Stands in for the other processes and writes down what means run over."""

    def __init__(self) -> None:
        self._counts: list[Tensor] = []

    @property
    def counts(self) -> Float[Tensor, " mean"]:
        """Return the number of items of every mean, in the order of the terms."""
        return torch.stack([count.float() for count in self._counts])

    def average(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the number, having noted it."""
        self._counts.append(value.detach())
        return value

    def gather(
        self, rows: Float[Tensor, "row channel"]
    ) -> Float[Tensor, "row channel"]:
        """Return the rows."""
        return rows

    def first_row(self, n_rows: int) -> int:
        """Return zero."""
        return 0


class PartOfBatch:
    """The other parts of a batch, those of this process and those of all others.

    Args:
        counts: What every mean of the whole batch runs over, per process.
        ranks: The other processes.
    """

    def __init__(self, counts: Float[Tensor, " mean"], ranks: Ranks) -> None:
        self._counts: Iterator[Tensor] = iter(counts.unbind())
        self._ranks = ranks

    def average(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the number of the next mean."""
        return next(self._counts)

    def gather(
        self, rows: Float[Tensor, "row channel"]
    ) -> Float[Tensor, "all channel"]:
        """Return the rows of all processes."""
        return self._ranks.gather(rows)

    def first_row(self, n_rows: int) -> int:
        """Return where the rows of this process start among the gathered ones."""
        return self._ranks.first_row(n_rows)
