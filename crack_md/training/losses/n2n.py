"""Node-to-node: match the teacher's features atom by atom."""

from dataclasses import dataclass

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

    name: str = "n2n"

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return the mean over atoms of ‖P z_S − z_T‖²."""
        teacher, student = step.features_of(self.name)[0]
        return step.mean(squared_distances(student, teacher))
