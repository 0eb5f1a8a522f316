"""Node energy: match what the teacher says each atom contributes to the energy."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crack_md.training.losses.base import DistillationStep, Ranks


def without_element_means(
    difference: Float[Tensor, " atom"],
    atomic_numbers: Int[Tensor, " atom"],
    ranks: Ranks,
) -> Float[Tensor, " atom"]:
    """Return the differences minus their mean over all atoms of the same element.

    The mean is the constant that makes Σ (d_i − c_Z(i))² smallest, taken over the atoms
    of all processes.
    """
    table = difference.new_zeros(2, 128)
    table = table.index_add(
        1, atomic_numbers, torch.stack([difference, torch.ones_like(difference)])
    )
    everyone = ranks.gather(table.view(1, -1)).sum(dim=0).view_as(table)
    means = everyone[0] / everyone[1].clamp_min(1)
    return difference - means[atomic_numbers]


@dataclass(frozen=True)
class NodeEnergyLoss:
    """Mean (ε_S − ε_T)²/σ² over atoms, with the energies ε of single atoms.

    Only the sum of ε is physics; how it is shared among atoms is each model's choice.
    Its local part, what the surroundings do to an atom, is what a student can learn. A
    constant per element is convention: two models may place the zero of an element's
    energy differently and agree on every reaction energy. ``per_element_shift`` leaves
    these constants out, and so to the terms that compare total energies, which alone
    can fix them. A student that starts from its teacher's weights needs no shift.
    """

    sigma_eV: float
    per_element_shift: bool
    name: str = "node_energy"

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return the mean over atoms, of all elements."""
        assert step.teacher is not None, "the builder checks that there is one"
        student, teacher = step.student.node_energy, step.teacher.node_energy
        assert student is not None, "our students know the energies of their atoms"
        assert teacher is not None, "checked when the labels are read"
        difference = (student.double() - teacher.double()) / self.sigma_eV
        if self.per_element_shift:
            difference = without_element_means(
                difference, step.graph.atomic_numbers, step.ranks
            )
        return step.mean(difference.square().float())
