"""The weighted sum of all loss terms, also over batches that come in parts.

Exact means over batches that come in parts, where memory is too short for the whole.

A mean over the pairs or free atoms of a batch is no mean of the parts' means: parts
hold different numbers of them. So the terms first count, without the student, over how
many items they average; then each part is divided by the number of the whole batch.
Terms ask for that number where they ask for the average over processes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.graph import AtomGraph
from crack_md.models.force_field import ForceField, Prediction
from crack_md.training.data.frames import Batch
from crack_md.training.loop.heads import SHARED, FeatureHead
from crack_md.training.losses import (
    DistillationStep,
    Features,
    HessianLoss,
    OneRank,
    Ranks,
    WeightedTerm,
)


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
