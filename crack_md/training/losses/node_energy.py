"""Node energy: match what the teacher says each atom contributes to the energy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from crack_md.data.dataset import LabelledStructure
from crack_md.training.losses.base import (
    DistillationStep,
    Label,
    LossSection,
    Ranks,
    TrainedOn,
    Weight,
    WeightedTerm,
    usable_spread,
)


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
        values = difference.square().float()
        return step.mean(values, term=self.name)

    def count_items(self, step: DistillationStep) -> tuple[int]:
        """Return the number of atoms."""
        return (step.graph.n_atoms,)


class NodeEnergyConfig(LossSection):
    """Squared error of the energies of single atoms, (ε_S − ε_T)²/σ²."""

    kind: Literal["node_energy"]
    weight: Weight
    sigma_eV: float | None = Field(default=None, gt=0)
    """σ; by default the spread of the teacher's values around their element's mean, so
    that 1 is what a student reaches that knows the elements and nothing else. The
    public code has weight 0.5 and σ = 2.887/77.8 eV."""
    per_element_shift: bool = False
    """Leave a constant per element out of the comparison: for teachers of another
    architecture, whose zero of an atom's energy is another one."""

    @property
    def reads(self) -> tuple[Label, ...]:
        """Return what is read of the teacher."""
        return ("node_energy",)

    @property
    def sees_whole_batch(self) -> bool:
        """Return whether all structures of a batch are compared with each other."""
        return self.per_element_shift

    def build_terms(self, name: str, run: TrainedOn) -> list[WeightedTerm]:
        """Return the term under this name, with its weight."""
        sigma = self.sigma_eV or node_energy_spread(run.labelled)
        loss = NodeEnergyLoss(sigma, self.per_element_shift, name=name)
        return [WeightedTerm(loss, self.weight)]


def node_energy_spread(frames: Sequence[LabelledStructure]) -> float:
    """Return how far in eV the teacher's atoms lie from the mean of their element."""
    numbers = np.concatenate([frame.atoms.numbers for frame in frames])
    energies = np.concatenate(
        [
            frame.teacher.node_energy
            for frame in frames
            if frame.teacher is not None and frame.teacher.node_energy is not None
        ]
    )
    _, element = np.unique(numbers, return_inverse=True)
    means = np.bincount(element, weights=energies) / np.bincount(element)
    return usable_spread(float(np.std(energies - means[element])))
