"""Several processes: how they start, and what losses exchange between them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import cast

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, distributed

from crack_md.training.config import RunConfig

PATIENCE = timedelta(hours=6)
"""Processes wait for each other so long, while the first labels or validates alone."""


def build_fabric(run: RunConfig) -> Fabric:
    """Return Fabric for the devices of a run.

    Degrees above zero of the last layer reach no invariant output, so some weights have
    no gradient, which DDP must be told. Precision is left at float32: the objective
    opens autocast around the student alone, and losses and energies stay exact.
    """
    return Fabric(
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.num_nodes,
        strategy="auto"
        if run.n_ranks == 1
        else DDPStrategy(find_unused_parameters=True, timeout=PATIENCE),
    )


@contextmanager
def first_rank_first() -> Iterator[bool]:
    """Run the block in the first process, then in the others; yield which one it is.

    True for the first, and without several processes.
    """
    alone = not (distributed.is_available() and distributed.is_initialized())
    is_first = alone or distributed.get_rank() == 0
    if not is_first:
        distributed.barrier()
    yield is_first
    if is_first and not alone:
        distributed.barrier()


class FabricRanks:
    """The processes that Lightning Fabric runs; on one process nothing happens."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric

    def average(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the mean of a number over all processes, without gradient."""
        if self._fabric.world_size == 1:
            return value
        mean = self._fabric.all_reduce(value.detach().clone(), reduce_op="mean")
        return cast(Tensor, mean)

    def gather(
        self, rows: Float[Tensor, "row channel"]
    ) -> Float[Tensor, "all channel"]:
        """Return the rows of all processes; gradients flow back to their owners.

        Processes hold different numbers of rows, so rows travel padded.
        """
        if self._fabric.world_size == 1:
            return rows
        counts = self._all_counts(len(rows))
        padded = torch.nn.functional.pad(rows, (0, 0, 0, max(counts) - len(rows)))
        everyone = cast(Tensor, self._fabric.all_gather(padded, sync_grads=True))
        return torch.cat(
            [part[:count] for part, count in zip(everyone, counts, strict=True)]
        )

    def first_row(self, n_rows: int) -> int:
        """Return where the rows of this process start among the gathered ones."""
        if self._fabric.world_size == 1:
            return 0
        return sum(self._all_counts(n_rows)[: self._fabric.global_rank])

    def _all_counts(self, own: int) -> list[int]:
        count = torch.tensor(own, device=self._fabric.device)
        counts = cast(Tensor, self._fabric.all_gather(count)).flatten()
        return [int(number) for number in counts.tolist()]
