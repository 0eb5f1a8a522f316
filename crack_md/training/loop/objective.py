"""The weighted sum of all loss terms, also over batches that come in parts.

Means are exact over batches that come in parts, where memory is too short for the
whole. A mean over the pairs or free atoms of a batch is no mean of the parts' means:
parts hold different numbers of them. So every term first says, without the student,
over how many items of each part it averages; then each part is divided by the number of
the whole batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.graph import AtomGraph
from crack_md.models.force_field import ForceField, Prediction
from crack_md.training.data.frames import Batch
from crack_md.training.loop.compiled import CompiledStudent
from crack_md.training.loop.heads import SHARED, FeatureHead
from crack_md.training.losses import (
    Counts,
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
        own_heads: Heads that terms of these names have for themselves.
        ranks: The other processes of the run.
        autocast_dtype: Precision of the student's matrix products; losses stay float32.
        compiled: The student as compiled code, which knows no derivatives of forces.
    """

    def __init__(
        self,
        student: ForceField,
        terms: Sequence[WeightedTerm],
        *,
        head: FeatureHead | None = None,
        own_heads: Mapping[str, FeatureHead] | None = None,
        ranks: Ranks | None = None,
        autocast_dtype: torch.dtype | None = None,
        compiled: CompiledStudent | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.compiled = compiled
        self.terms = tuple(terms)
        self.weights = {item.term.name: item.weight for item in terms}
        """May change while the run goes on."""
        self.head = head
        self.own_heads = nn.ModuleDict(own_heads or {})
        self.ranks = ranks or OneRank()
        self.autocast_dtype = autocast_dtype
        self._differentiates_forces = any(
            isinstance(item.term, HessianLoss) and item.term.method == "gradient"
            for item in self.terms
        )

    @property
    def heads(self) -> dict[str, FeatureHead]:
        """Return all heads by name, the shared one first."""
        if self.head is None:
            return {}
        own = cast(Mapping[str, FeatureHead], self.own_heads)
        return {SHARED: self.head, **own}

    def forward(self, batch: Batch, counts: Counts | None = None) -> LossReport:
        """Return the weighted sum of all terms and each term by name.

        Args:
            batch: What to learn from.
            counts: Items of the whole batch, where this is a part of it.
        """
        values = self.values(batch, counts)
        weighted = [self.weights[name] * value for name, value in values.items()]
        parts = {name: value.detach() for name, value in values.items()}
        return LossReport(torch.stack(weighted).sum(), parts)

    def values(
        self, batch: Batch, counts: Counts | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Return each term by name, unweighted, with its graph."""
        device = batch.graph.positions.device.type
        graph = batch.graph
        if self._differentiates_forces:
            positions = graph.positions.detach().requires_grad_()
            graph = graph._replace(positions=positions)
        with torch.autocast(
            device, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None
        ):
            prediction = self.predict(graph)
        with torch.autocast(device, enabled=False):
            step = self._step(batch._replace(graph=graph), prediction, counts)
            return {item.term.name: item.term(step) for item in self.terms}

    def predict(self, graph: AtomGraph) -> Prediction:
        """Return what the student says, by compiled code where there is some."""
        evaluate: Callable[[AtomGraph], Prediction] = self.compiled or self.student
        return evaluate(graph)

    def count_items(self, batch: Batch) -> Counts:
        """Return over how many items the means of each term run, by its name.

        The student is not asked: zeros stand for its features.
        """
        config = self.student.network.config
        shape = (config.feature_degree + 1) ** 2, config.feature_channels
        like = batch.graph.positions
        features = like.new_zeros(batch.graph.n_atoms, *shape)
        none = like.new_zeros(0)
        step = self._step(batch, Prediction(none, none, None, features))
        return {
            item.term.name: like.new_tensor(
                item.term.count_items(step), dtype=torch.float32
            )
            for item in self.terms
        }

    def _step(
        self, batch: Batch, prediction: Prediction, counts: Counts | None = None
    ) -> DistillationStep:
        features: tuple[Features, ...] = ()
        own_features = {}
        if self.head is not None and batch.teacher is not None:
            own_features = {
                name: head.by_degree(
                    prediction.node_features, batch.teacher.node_features
                )
                for name, head in self.heads.items()
            }
            features = own_features.pop(SHARED)
        return DistillationStep(
            batch.graph,
            prediction,
            batch.teacher,
            batch.labels,
            features=features,
            own_features=own_features,
            jacobian=batch.jacobian,
            model=self.predict,
            energy_of=self.student.energy,
            chains=batch.chains,
            ranks=self.ranks,
            counts=counts,
        )
