"""CRACK: contrast the relations between neighboring atoms (InfoNCE on edges)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import normalize

from crack_md.graph import AtomGraph
from crack_md.training.losses.base import (
    Degrees,
    DistillationStep,
    Features,
    TrainedOn,
    WeightedTerm,
)
from crack_md.training.losses.infonce import Contrast, ContrastConfig, Rows


class AtomPairs(NamedTuple):
    """Pairs of different atoms that are neighbors."""

    first: Int[Tensor, " pair"]
    second: Int[Tensor, " pair"]

    def keep(self, chosen: Shaped[Tensor, " chosen"]) -> "AtomPairs":
        """Return the chosen pairs, by their numbers or by true and false."""
        return AtomPairs(self.first[chosen], self.second[chosen])


def unique_pairs(graph: AtomGraph) -> AtomPairs:
    """Return every neighboring pair once.

    Periodic images of a pair are merged, and an atom paired with its own image is
    dropped: its relation is the zero vector whatever the model says.
    """
    n = graph.n_atoms
    receiver = torch.arange(n, device=graph.neighbors.device).unsqueeze(1)
    low = torch.minimum(receiver, graph.neighbors)
    high = torch.maximum(receiver, graph.neighbors)
    key = (low * n + high)[graph.mask & (low != high)].unique()
    return AtomPairs(key // n, key % n)


def by_element(pairs: AtomPairs, atomic_numbers: Int[Tensor, " atom"]) -> AtomPairs:
    """Return the pairs, the lighter element first: a direction that atoms agree on."""
    swap = atomic_numbers[pairs.first] > atomic_numbers[pairs.second]
    return AtomPairs(
        torch.where(swap, pairs.second, pairs.first),
        torch.where(swap, pairs.first, pairs.second),
    )


def both_directions(pairs: AtomPairs) -> AtomPairs:
    """Return each pair twice, i → j and j → i."""
    return AtomPairs(
        torch.cat([pairs.first, pairs.second]), torch.cat([pairs.second, pairs.first])
    )


def unit_features(
    features: Float[Tensor, "atom channel"], *, degree: int
) -> Float[Tensor, "atom channel"]:
    """Return ẑ = z/‖z‖; shorter where z is hardly more than round-off.

    Above degree 0 features vanish where the site is symmetric. What is left then is
    noise of any direction, which this keeps below the smallest difference.
    """
    return normalize(features, dim=-1, eps=0.1 if degree else 1e-6)


def relations(
    unit: Float[Tensor, "atom channel"],
    pairs: AtomPairs,
    *,
    smallest_difference: float,
) -> tuple[Float[Tensor, "pair channel"], Float[Tensor, " pair"]]:
    """Return the directions r = (ẑ_i − ẑ_j)/‖ẑ_i − ẑ_j‖ and the lengths ‖ẑ_i − ẑ_j‖.

    Below the smallest difference the divisor stays at it: the direction of two equal
    atoms is round-off, and its gradient would grow as one over their distance.
    """
    difference = unit[pairs.first] - unit[pairs.second]
    length = torch.linalg.vector_norm(difference, dim=-1)
    return difference / length.clamp_min(smallest_difference).unsqueeze(1), length


@dataclass(frozen=True)
class CrackLoss:
    """The relational term: mean InfoNCE over the neighboring pairs of the batch.

    With several degrees, the mean of their losses. Above degree 0 a relation turns with
    the structure, and so does the teacher's: their product does not, as long as both
    name the coefficients alike and only relations of one structure are compared.
    """

    contrast: Contrast
    pairs: Literal["unique", "directed"]
    smallest_difference: float
    degrees: tuple[int, ...] = (0,)
    same_elements: bool = False
    """Contrast a pair with pairs of the same two elements only."""
    name: str = "crack"

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return the mean over pairs; a batch without pairs gives zero."""
        features = step.features_of(self.name)
        losses = [
            step.mean(
                self._of_pairs(features[degree], pairs, step, degree=degree),
                term=self.name,
                place=place,
            )
            for place, (degree, pairs) in enumerate(self._pairs(step))
        ]
        return torch.stack(losses).mean()

    def count_items(self, step: DistillationStep) -> list[int]:
        """Return the number of pairs, by degree."""
        return [len(pairs.first) for _, pairs in self._pairs(step)]

    def _pairs(self, step: DistillationStep) -> Iterator[tuple[int, AtomPairs]]:
        """Yield degrees, and the pairs whose atoms the teacher tells apart there."""
        pairs = unique_pairs(step.graph)
        if self.same_elements:
            pairs = by_element(pairs, step.graph.atomic_numbers)
        for degree in self.degrees:
            features = step.features_of(self.name)[degree].teacher
            with torch.no_grad():
                unit = unit_features(features, degree=degree)
                _, length = self._relations(unit, pairs)
            kept = pairs.keep(length > self.smallest_difference)
            yield degree, both_directions(kept) if self.pairs == "directed" else kept

    def _of_pairs(
        self, features: Features, pairs: AtomPairs, step: DistillationStep, degree: int
    ) -> Float[Tensor, " pair"]:
        teacher, student = (unit_features(part, degree=degree) for part in features)

        def rows(pairs: AtomPairs) -> Rows:
            def take(chosen: Tensor) -> tuple[Tensor, Tensor]:
                those = pairs.keep(chosen)
                return (
                    self._relations(teacher, those)[0],
                    self._relations(student, those)[0],
                )

            return Rows(take, step.graph.batch[pairs.first], teacher.shape[1])

        values = [
            self.contrast(rows(part), step, both_signs=both_signs, kind=kind)
            for part, kind, both_signs in self._kinds(pairs, step)
        ]
        return torch.cat(values)

    def _kinds(
        self, pairs: AtomPairs, step: DistillationStep
    ) -> Iterator[tuple[AtomPairs, Tensor | None, bool]]:
        """Yield pairs, what they may be contrasted with, and if with reversed ones.

        Both signs of unique pairs equal both directions, at a quarter of the cost. But
        of two elements the order tells the direction: the reverse is of another kind.
        """
        both_signs = self.pairs == "unique"
        if not self.same_elements:
            yield pairs, None, both_signs
            return
        numbers = step.graph.atomic_numbers
        first, second = numbers[pairs.first], numbers[pairs.second]
        kind = 128 * first + second
        for alike in (True, False):
            chosen = (first == second) == alike
            yield pairs.keep(chosen), kind[chosen], both_signs and alike

    def _relations(
        self, unit: Float[Tensor, "atom channel"], pairs: AtomPairs
    ) -> tuple[Float[Tensor, "pair channel"], Float[Tensor, " pair"]]:
        return relations(unit, pairs, smallest_difference=self.smallest_difference)


class CrackConfig(ContrastConfig):
    """Relational InfoNCE on neighboring pairs."""

    kind: Literal["crack"]
    pairs: Literal["unique", "directed"] = "unique"
    smallest_difference: float = Field(default=1e-3, gt=0)
    """Pairs whose teacher features differ by less are equivalent atoms: left out."""
    degrees: Degrees = (0,)
    """Degrees whose relations are compared: 0 for CRACK, 0 to 2 for ARK. Above 0 the
    teacher must share the student's architecture."""

    @model_validator(mode="after")
    def _turns_together(self) -> "CrackConfig":
        if self.negatives == "global" and any(self.degrees):
            raise ValueError(
                "degrees above 0 turn with their structure and compare within it only; "
                "use negatives: structure"
            )
        return self

    def build_terms(self, name: str, run: TrainedOn) -> list[WeightedTerm]:
        """Return the term under this name, with its weight."""
        loss = CrackLoss(
            self.contrast,
            self.pairs,
            self.smallest_difference,
            self.degrees,
            self.same_elements,
            name=name,
        )
        return [WeightedTerm(loss, self.weight)]
