"""Node-to-node: match the teacher's features atom by atom."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from crack_md.training.losses.base import DistillationStep


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
        return step.mean(torch.stack(distances).sum(dim=0))
