"""Triplet: match the angles between the relations of one atom to two neighbors."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize, smooth_l1_loss

from crack_md.graph import AtomGraph, edge_vectors
from crack_md.training.losses.base import (
    DistillationStep,
    Features,
    Label,
    LossSection,
    TrainedOn,
    Weight,
    WeightedTerm,
)

TIE_A = 1e-4
"""Å; distances that agree to this count as equal when neighbors are ranked."""


class RankedNeighbors(NamedTuple):
    """The neighbors of every atom, nearest first, each atom once."""

    neighbors: Int[Tensor, "atom rank"]
    mask: Bool[Tensor, "atom rank"]
    """True where there is one; the filled ranks of an atom come first."""


def ranked_neighbors(graph: AtomGraph) -> RankedNeighbors:
    """Return the neighbors by distance, of equal ones the lighter element first.

    Of the images of an atom the nearest counts, and an atom is no neighbor of itself.
    What is still equal then keeps the order of the table, the only thing here that
    depends on how atoms are numbered.
    """
    positions = graph.positions.detach()
    vectors = edge_vectors(graph._replace(positions=positions))
    distance = (torch.linalg.vector_norm(vectors, dim=-1) / TIE_A).round()
    receiver = torch.arange(graph.n_atoms, device=positions.device).unsqueeze(1)
    real = graph.mask & (graph.neighbors != receiver)
    distance = distance.masked_fill(~real, torch.inf)
    order = graph.atomic_numbers[graph.neighbors].argsort(dim=1, stable=True)
    order = order.gather(1, distance.gather(1, order).argsort(dim=1, stable=True))
    neighbors, real = graph.neighbors.gather(1, order), real.gather(1, order)
    same = neighbors.unsqueeze(2) == neighbors.unsqueeze(1)  # (atom, rank, rank)
    again = (same & real.unsqueeze(1)).tril(diagonal=-1).any(dim=2)
    real = real & ~again
    order = (~real).to(torch.uint8).argsort(dim=1, stable=True)
    return RankedNeighbors(neighbors.gather(1, order), real.gather(1, order))


def relation_angles(
    features: Float[Tensor, "atom channel"],
    ranked: RankedNeighbors,
    *,
    partners: int,
    smallest_difference: float,
) -> tuple[Float[Tensor, "atom angle"], Bool[Tensor, "atom angle"]]:
    """Return cos(r_ij, r_il) of each neighbor j with the next few l, and which exist.

    The relations r are those of the CRACK loss, (ẑ_i − ẑ_j)/‖ẑ_i − ẑ_j‖. An angle does
    not exist where a neighbor is missing, or hardly differs from the atom.

    Args:
        features: z.
        ranked: The neighbors j, l of every atom i.
        partners: How many l, the next in rank, each j is paired with: with all of them
            a row of n has n (n − 1)/2 angles, with k about n k.
        smallest_difference: The divisor stays at it where ‖ẑ_i − ẑ_j‖ is less.
    """
    unit = normalize(features, dim=-1, eps=1e-6)
    difference = unit.unsqueeze(1) - unit[ranked.neighbors]  # (atom, rank, channel)
    length = torch.linalg.vector_norm(difference, dim=-1)
    exists = ranked.mask & (length > smallest_difference)
    relation = difference / length.clamp_min(smallest_difference).unsqueeze(2)
    # All products of a row in one go: as many numbers as edges times ranks, fewer than
    # the relations themselves. The partners are the diagonals next to the main one.
    cosine = relation @ relation.transpose(1, 2)
    both = exists.unsqueeze(2) & exists.unsqueeze(1)
    offsets = range(1, min(partners, both.shape[1] - 1) + 1)
    empty = cosine.new_zeros(len(cosine), 0)
    return (
        torch.cat([empty, *(_beside(cosine, k) for k in offsets)], dim=1),
        torch.cat([empty.bool(), *(_beside(both, k) for k in offsets)], dim=1),
    )


def _beside(table: Tensor, offset: int) -> Tensor:
    return table.diagonal(offset, dim1=1, dim2=2)


@dataclass(frozen=True)
class TripletLoss:
    """Mean error of the angles between relations: what pairs alone do not tell.

    Angles between differences of features are the relational distillation of Park et
    al. (CVPR 2019), here between the neighbors of an atom only.
    """

    partners: int
    error: Literal["smooth_l1", "mse"]
    smallest_difference: float
    name: str = "triplet"

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return the mean over all angles; a batch without any gives zero."""
        features: Features = step.features_of(self.name)[0]
        ranked = ranked_neighbors(step.graph)
        with torch.no_grad():
            teacher, exists = self._angles(features.teacher, ranked)
        student, _ = self._angles(features.student, ranked)
        teacher, student = teacher[exists], student[exists]
        errors = (
            (student - teacher).square()
            if self.error == "mse"
            else smooth_l1_loss(student, teacher, reduction="none")
        )
        return step.mean(errors, term=self.name)

    def count_items(self, step: DistillationStep) -> tuple[int]:
        """Return the number of angles that the teacher knows."""
        features = step.features_of(self.name)[0]
        _, exists = self._angles(features.teacher, ranked_neighbors(step.graph))
        return (int(exists.sum()),)

    def _angles(
        self, features: Float[Tensor, "atom channel"], ranked: RankedNeighbors
    ) -> tuple[Float[Tensor, "atom angle"], Bool[Tensor, "atom angle"]]:
        return relation_angles(
            features,
            ranked,
            partners=self.partners,
            smallest_difference=self.smallest_difference,
        )


class TripletConfig(LossSection):
    """Angles between the relations of one atom to two neighbors."""

    kind: Literal["triplet"]
    weight: Weight
    partners: int = Field(default=8, ge=1)
    """Each neighbor forms angles with this many others, the next in distance."""
    error: Literal["smooth_l1", "mse"] = "smooth_l1"
    """Of the cosines of the angles; smooth_l1 is d²/2 up to 1, and linear above."""
    smallest_difference: float = Field(default=1e-3, gt=0)
    """Neighbors whose teacher features differ by less from the atom's are left out."""

    @property
    def reads(self) -> tuple[Label, ...]:
        """Return what is read of the teacher."""
        return ("node_features",)

    def build_terms(self, name: str, run: TrainedOn) -> list[WeightedTerm]:
        """Return the term under this name, with its weight."""
        loss = TripletLoss(
            self.partners, self.error, self.smallest_difference, name=name
        )
        return [WeightedTerm(loss, self.weight)]
