"""Instance: contrast atoms instead of relations between atoms."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from crack_md.training.losses.base import DistillationStep, TrainedOn, WeightedTerm
from crack_md.training.losses.infonce import Contrast, ContrastConfig, Rows


@dataclass(frozen=True)
class InstanceLoss:
    """Mean InfoNCE over atoms: an atom's features against those of all other atoms.

    Atoms that are equal by symmetry are negatives of each other all the same: n of them
    put a floor of log n under the loss, without any gradient once the student sees them
    as equal too.
    """

    contrast: Contrast
    same_elements: bool = False
    """Contrast an atom with atoms of the same element only."""
    name: str = "instance"

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return the mean over atoms; the only atom of its pool costs nothing."""
        features = step.features_of(self.name)[0]
        teacher, student = (
            normalize(values, dim=-1, eps=1e-6)
            for values in (features.teacher, features.student)
        )
        rows = Rows.of(teacher, student, step.graph.batch)
        kind = step.graph.atomic_numbers if self.same_elements else None
        values = self.contrast(rows, step, both_signs=False, kind=kind)
        return step.mean(values, term=self.name)

    def count_items(self, step: DistillationStep) -> tuple[int]:
        """Return the number of atoms."""
        return (step.graph.n_atoms,)


class InstanceConfig(ContrastConfig):
    """InfoNCE on atoms."""

    kind: Literal["instance"]

    def build_terms(self, name: str, run: TrainedOn) -> list[WeightedTerm]:
        """Return the term under this name, with its weight."""
        loss = InstanceLoss(self.contrast, self.same_elements, name=name)
        return [WeightedTerm(loss, self.weight)]
