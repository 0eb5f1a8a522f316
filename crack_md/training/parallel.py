"""Several processes: how they start, and what losses exchange between them."""

from typing import cast

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor

from crack_md.training.config import RunConfig


def build_fabric(run: RunConfig) -> Fabric:
    """Return Fabric for the devices of a run.

    Degrees above zero of the last layer reach no invariant output, so some weights have
    no gradient, which DDP must be told. Precision is left at float32: the objective
    opens autocast around the student alone, and losses and energies stay exact.
    """
    several = run.devices * run.num_nodes > 1
    return Fabric(
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.num_nodes,
        strategy=DDPStrategy(find_unused_parameters=True) if several else "auto",
    )


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
        own = torch.tensor(len(rows), device=rows.device)
        counts = cast(Tensor, self._fabric.all_gather(own)).flatten().tolist()
        padded = torch.nn.functional.pad(rows, (0, 0, 0, max(counts) - len(rows)))
        everyone = cast(Tensor, self._fabric.all_gather(padded, sync_grads=True))
        return torch.cat(
            [part[:count] for part, count in zip(everyone, counts, strict=True)]
        )
