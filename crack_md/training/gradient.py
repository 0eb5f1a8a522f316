"""The gradient of one batch, whole or in parts."""

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from crack_md.data.batches import Batch
from crack_md.training.accumulate import PartOfBatch
from crack_md.training.clock import Clock
from crack_md.training.objective import Objective
from crack_md.training.sampling import seed_step


class Gradient:
    """Leaves the gradient of the mean loss of a batch with the parameters.

    Args:
        fabric: The processes, which average their gradients.
        model: The objective as Fabric has set it up.
        objective: The same, bare.
        clock: Is told when losses and gradients are done.
        seed: Of the run; what a loss draws depends on it and the step alone.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        objective: Objective,
        *,
        clock: Clock,
        seed: int,
    ) -> None:
        self._fabric, self._model, self._objective = fabric, model, objective
        self._clock, self._seed = clock, seed

    def __call__(self, parts: list[Batch], step: int) -> dict[str, Tensor]:
        """Return the losses of this process by name, without gradient.

        They average over processes to those of the whole batch.
        """
        counts = self._count_items(parts, step) if len(parts) > 1 else None
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(parts, start=1):
            others = None
            if counts is not None:
                others = PartOfBatch(counts, self._objective.ranks)
            # for every part anew: draws do not depend on how many there are
            seed_step(self._seed, step, self._fabric.device)
            waits = number < len(parts)
            with self._fabric.no_backward_sync(self._model, enabled=waits):  # type: ignore[arg-type]
                report = self._model(batch, others)
                self._clock.lap("loss")
                self._fabric.backward(report.total)
                self._clock.lap("update")
            for name, value in ({"loss": report.total.detach()} | report.parts).items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _count_items(self, parts: list[Batch], step: int) -> Tensor:
        """Return over how many items each term averages, per process."""
        seed_step(self._seed, step, self._fabric.device)
        own = torch.stack([self._objective.count_items(batch) for batch in parts])
        counts: Tensor = self._fabric.all_reduce(  # type: ignore[assignment]
            own.sum(dim=0), reduce_op="mean"
        )
        return counts
