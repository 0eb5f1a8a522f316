"""Several processes: how they start, and what losses exchange between them."""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, distributed

from crack_md.errors import ConfigError
from crack_md.training.config import RunConfig

PATIENCE = timedelta(hours=6)
"""Processes wait for each other so long, while the first labels or validates alone."""


LAST_EXCHANGE_S = 0.5


@contextmanager
def launched_fabric(run: RunConfig) -> Iterator[Fabric]:
    """Yield Fabric on the devices of a run, all its processes started.

    Degrees above zero of the last layer reach no invariant output, so some weights have
    no gradient, which DDP must be told. Precision is left at float32: the objective
    opens autocast around the student alone, and losses and energies stay exact.

    Raises:
        ConfigError: There are not so many GPUs.
    """
    fabric = Fabric(
        accelerator=_accelerator(run),
        devices=run.devices,
        num_nodes=run.num_nodes,
        strategy="auto"
        if run.n_ranks == 1
        else DDPStrategy(find_unused_parameters=True, timeout=PATIENCE),
    )
    log = logging.getLogger("lightning_fabric")
    level = log.level
    log.setLevel(logging.WARNING)  # a banner that --quiet would not silence
    fabric.launch()
    log.setLevel(level)
    try:
        with warnings.catch_warnings():
            # weights of one row or column have strides of no meaning
            warnings.filterwarnings("ignore", message="Grad strides do not match")
            yield fabric
        fabric.barrier()  # the first keeps the store through which the others part
    finally:
        if run.n_ranks > 1:
            _part()


def _accelerator(run: RunConfig) -> str:
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if run.accelerator == "cpu" or (run.accelerator == "auto" and not n_gpus):
        return "cpu"  # Fabric's own "auto" also takes devices without float64
    if run.devices > n_gpus:
        raise ConfigError(
            f"run.devices is {run.devices} and run.accelerator '{run.accelerator}'; "
            f"this machine has {n_gpus} GPUs"
        )
    return "cuda"


def _part() -> None:
    """Leave the other processes.

    A thread of gloo drops the tensors of its last exchange under Python's lock. Where
    the interpreter ends first, that thread aborts the process ("terminate called
    without an active exception"); where the group is joined by whoever holds the lock,
    both wait forever. Hence a moment without the lock before the group is closed.
    """
    time.sleep(LAST_EXCHANGE_S)
    distributed.destroy_process_group()


class _Gather(torch.autograd.Function):
    """Stacks the equally many rows of all processes, with a way back for gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return _all(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[distributed.get_rank()]


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
        everyone: Tensor = _Gather.apply(padded)  # type: ignore[no-untyped-call]
        return torch.cat(
            [part[:count] for part, count in zip(everyone, counts, strict=True)]
        )

    def first_row(self, n_rows: int) -> int:
        """Return where the rows of this process start among the gathered ones."""
        if self._fabric.world_size == 1:
            return 0
        return sum(self._all_counts(n_rows)[: self._fabric.global_rank])

    def _all_counts(self, own: int) -> list[int]:
        counts = _all(torch.tensor(own, device=self._fabric.device))
        return [int(number) for number in counts.tolist()]


def _all(tensor: Tensor) -> Tensor:
    # Fabric's gather warns of a function of torch that is to go
    parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, tensor.contiguous())
    return torch.stack(parts)
