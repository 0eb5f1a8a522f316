"""The weighted sum of all loss terms, with the student and the head P inside."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.data.batches import Batch
from crack_md.models.base import invariants
from crack_md.models.force_field import ForceField
from crack_md.training.heads import FeatureHead
from crack_md.training.losses import (
    DistillationStep,
    Features,
    HessianLoss,
    OneRank,
    Ranks,
    WeightedTerm,
)


class LossReport(NamedTuple):
    """The objective and its parts."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]
    """Unweighted terms by name, without gradient."""


class Objective(nn.Module):
    """Student, head and loss terms as one module: one forward, one backward.

    Args:
        student: The model that is trained.
        terms: Loss terms with their weights.
        head: P, where a term compares features.
        ranks: The other processes of the run.
        autocast_dtype: Precision of the student's matrix products; losses stay float32.
    """

    def __init__(
        self,
        student: ForceField,
        terms: Sequence[WeightedTerm],
        *,
        head: FeatureHead | None = None,
        ranks: Ranks | None = None,
        autocast_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.terms = tuple(terms)
        self.head = head
        self.ranks = ranks or OneRank()
        self.autocast_dtype = autocast_dtype
        self._differentiates_forces = any(
            isinstance(item.term, HessianLoss) and item.term.method == "gradient"
            for item in self.terms
        )

    def forward(self, batch: Batch) -> LossReport:
        """Return the weighted sum of all terms and each term by name."""
        device = batch.graph.positions.device.type
        graph = batch.graph
        if self._differentiates_forces:
            positions = graph.positions.detach().requires_grad_()
            graph = graph._replace(positions=positions)
        with torch.autocast(
            device, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None
        ):
            prediction = self.student(graph)
        with torch.autocast(device, enabled=False):
            features: tuple[Features, ...] = ()
            if self.head is not None and batch.teacher is not None:
                features = (
                    self.head(invariants(prediction), invariants(batch.teacher)),
                )
            step = DistillationStep(
                graph,
                prediction,
                batch.teacher,
                batch.labels,
                features=features,
                jacobian=batch.jacobian,
                model=self.student,
                ranks=self.ranks,
            )
            values = [
                (item.weight, item.term.name, item.term(step)) for item in self.terms
            ]
            total = torch.stack([weight * value for weight, _, value in values]).sum()
        return LossReport(total, {name: value.detach() for _, name, value in values})
