"""The weighted sum of all loss terms, with the student and the head P inside."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.data.batches import Batch
from crack_md.graph import AtomGraph
from crack_md.models.base import Prediction
from crack_md.models.force_field import ForceField
from crack_md.training.accumulate import Tally
from crack_md.training.heads import SHARED, FeatureHead
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
        own_heads: Heads that terms of these names have for themselves.
        ranks: The other processes of the run.
        autocast_dtype: Precision of the student's matrix products; losses stay float32.
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
    ) -> None:
        super().__init__()
        self.student = student
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

    def forward(self, batch: Batch, ranks: Ranks | None = None) -> LossReport:
        """Return the weighted sum of all terms and each term by name.

        Args:
            batch: What to learn from.
            ranks: The other parts of the batch, where it is one of several.
        """
        values = self.values(batch, ranks)
        weighted = [self.weights[name] * value for name, value in values.items()]
        parts = {name: value.detach() for name, value in values.items()}
        return LossReport(torch.stack(weighted).sum(), parts)

    def values(
        self, batch: Batch, ranks: Ranks | None = None
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
            prediction = self.student(graph)
        with torch.autocast(device, enabled=False):
            step = self._step(
                batch._replace(graph=graph),
                prediction,
                model=self.student,
                ranks=ranks or self.ranks,
            )
            return {item.term.name: item.term(step) for item in self.terms}

    def count_items(self, batch: Batch) -> Float[Tensor, " mean"]:
        """Return over how many items each term averages, without asking the student."""
        positions = batch.graph.positions.detach().requires_grad_()
        graph = batch.graph._replace(positions=positions)
        tally = Tally()
        step = self._step(
            batch._replace(graph=graph),
            self._nothing(graph),
            model=self._nothing,
            ranks=tally,
        )
        for item in self.terms:
            item.term(step)
        return tally.counts

    def _step(
        self,
        batch: Batch,
        prediction: Prediction,
        *,
        model: Callable[[AtomGraph], Prediction],
        ranks: Ranks,
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
            model=model,
            energy_of=self.student.energy,
            chains=batch.chains,
            ranks=ranks,
        )

    def _nothing(self, graph: AtomGraph) -> Prediction:
        """Return the zeros that a student of this shape could answer."""
        config = self.student.network.config
        forces = 0 * graph.positions  # they can be differentiated
        atomic = forces.new_zeros(graph.n_atoms, dtype=torch.float64)
        energy = forces.new_zeros(graph.n_structures, dtype=torch.float64)
        n_coefficients = (config.feature_degree + 1) ** 2
        shape = (graph.n_atoms, n_coefficients, config.feature_channels)
        return Prediction(energy, forces, None, forces.new_zeros(shape), atomic)
