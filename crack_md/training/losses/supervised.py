"""Energies and forces as labels: the dataset's own (task) or the teacher's (output)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from crack_md.graph import atoms_per_structure
from crack_md.training.losses.base import (
    DistillationStep,
    Label,
    LossSection,
    TrainedOn,
    Weight,
    WeightedTerm,
    energy_spread,
)

Source = Literal["task", "output"]
"""`task`: the labels of the dataset on free atoms; `output`: the teacher, all atoms."""


def energy_errors(
    energy: Float[Tensor, " structure"],
    label: Float[Tensor, " structure"],
    sizes: Int[Tensor, " structure"] | None = None,
) -> Float[Tensor, " structure"]:
    """Return |ΔE| in eV, or per atom where the sizes are given.

    The difference is taken in float64 and only then rounded: two total energies of
    hundreds of eV differ by less than float32 resolves.
    """
    error = (energy.double() - label.double()).abs()
    return (error if sizes is None else error / sizes).float()


def force_errors(
    forces: Float[Tensor, "atom 3"],
    label: Float[Tensor, "atom 3"],
    chosen: Bool[Tensor, " atom"] | None = None,
) -> Float[Tensor, " chosen"]:
    """Return ‖ΔF‖ in eV/Å for every chosen atom."""
    difference = forces.float() - label.float()
    if chosen is not None:
        difference = difference[chosen]
    return torch.linalg.vector_norm(difference, dim=-1)


@dataclass(frozen=True)
class EnergyLoss:
    """Mean |ΔE| in units of the energy spread σ."""

    source: Source
    sigma_eV: float
    per_atom: bool

    @property
    def name(self) -> str:
        """Return ``task_energy`` or ``output_energy``."""
        return f"{self.source}_energy"

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return mean |ΔE|/σ over structures; per atom, mean |ΔE|/(n σ)."""
        if self.source == "output":
            assert step.teacher is not None, "the builder checks that there is one"
            label = step.teacher.energy
        else:
            label = step.labels.energy
        sizes = atoms_per_structure(step.graph) if self.per_atom else None
        errors = energy_errors(step.student.energy, label, sizes)
        return step.mean(errors, term=self.name) / self.sigma_eV

    def count_items(self, step: DistillationStep) -> tuple[int]:
        """Return the number of structures."""
        return (step.graph.n_structures,)


@dataclass(frozen=True)
class ForceLoss:
    """Mean ‖ΔF‖ (L2-MAE) in units of σ/Å, with σ the energy spread as well."""

    source: Source
    sigma_eV: float

    @property
    def name(self) -> str:
        """Return ``task_forces`` or ``output_forces``."""
        return f"{self.source}_forces"

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return mean ‖ΔF‖/σ; a constraint hides an atom's label, not its teacher's."""
        if self.source == "output":
            assert step.teacher is not None, "the builder checks that there is one"
            errors = force_errors(step.student.forces, step.teacher.forces)
        else:
            errors = force_errors(
                step.student.forces, step.labels.forces, step.labels.free
            )
        return step.mean(errors, term=self.name) / self.sigma_eV

    def count_items(self, step: DistillationStep) -> tuple[int]:
        """Return the number of atoms whose forces are compared."""
        n_atoms = step.graph.n_atoms
        return (n_atoms if self.source == "output" else int(step.labels.free.sum()),)


class SupervisedConfig(LossSection):
    """Energies and forces: ``task`` of the dataset, ``output`` of the teacher."""

    kind: Literal["task", "output"]
    energy_weight: Weight
    force_weight: Weight
    per_atom: bool = False
    """Divide energy errors by the number of atoms (total energies, mixed sizes)."""
    sigma_eV: float | None = Field(default=None, gt=0)
    """Unit of both errors; by default the energy spread of the training set."""

    @property
    def reads(self) -> tuple[Label, ...]:
        """Return what is read of the teacher: nothing where the dataset is."""
        return () if self.kind == "task" else ("energy",)

    def build_terms(self, name: str, run: TrainedOn) -> list[WeightedTerm]:
        """Return two terms: of energies, and of forces."""
        sigma = self.sigma_eV or energy_spread(
            run.train, run.student.scale, per_atom=self.per_atom
        )
        return [
            WeightedTerm(
                EnergyLoss(self.kind, sigma, self.per_atom), self.energy_weight
            ),
            WeightedTerm(ForceLoss(self.kind, sigma), self.force_weight),
        ]
