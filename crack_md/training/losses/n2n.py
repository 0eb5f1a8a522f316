"""Node-to-node: match the teacher's features atom by atom."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from crack_md.training.losses.base import (
    Degrees,
    DistillationStep,
    Label,
    LossSection,
    TrainedOn,
    Weight,
    WeightedTerm,
)


def squared_distances(
    student: Float[Tensor, "atom channel"], teacher: Float[Tensor, "atom channel"]
) -> Float[Tensor, " atom"]:
    """Return ‖z_S − z_T‖² for every atom."""
    return (student - teacher).square().sum(dim=-1)


@dataclass(frozen=True)
class NodeToNodeLoss:
    """The mean squared distance of projected student and teacher features."""

    degrees: tuple[int, ...] = (0,)
    name: str = "n2n"

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return the mean over atoms of Σ_l ‖P z_S − z_T‖²."""
        features = [step.features_of(self.name)[degree] for degree in self.degrees]
        distances = [squared_distances(one.student, one.teacher) for one in features]
        values = torch.stack(distances).sum(dim=0)
        return step.mean(values, term=self.name)

    def count_items(self, step: DistillationStep) -> tuple[int]:
        """Return the number of atoms."""
        return (step.graph.n_atoms,)


class NodeToNodeConfig(LossSection):
    """Squared distance of node features."""

    kind: Literal["n2n"]
    weight: Weight
    degrees: Degrees = (0,)
    """Squared distances of these degrees, added up."""

    @property
    def reads(self) -> tuple[Label, ...]:
        """Return what is read of the teacher."""
        return ("node_features",)

    def build_terms(self, name: str, run: TrainedOn) -> list[WeightedTerm]:
        """Return the term under this name, with its weight."""
        return [WeightedTerm(NodeToNodeLoss(self.degrees, name=name), self.weight)]
