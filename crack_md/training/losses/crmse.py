"""CRMSE: energies of data go down, energies of what the model drifts into go up.

For p = exp(−βU)/Z the gradient of the Kullback-Leibler divergence of the data from the
model, KL(data‖p), is that of

    β [⟨U(x)⟩_data − ⟨U(x)⟩_chains]

with the positions of the chains, samples of p, held fixed (G. E. Hinton, Neural
Computation 14, 1771 (2002); persistent chains: T. Tieleman, ICML 2008). The value
itself says nothing: it is zero on average where the model is right, of either sign
elsewhere.
"""

from typing import Literal

import torch
from ase import units
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from crack_md.graph import AtomGraph
from crack_md.training.losses.base import (
    DistillationStep,
    LossSection,
    TrainedOn,
    WeightedTerm,
)

NAME = "crmse"


class CrmseLoss:
    """β times the mean energy of data less that of chains of the same composition.

    Args:
        beta_per_eV: 1/kT of the data and of the chains.
    """

    name = NAME

    def __init__(self, beta_per_eV: float) -> None:
        self.beta_per_eV = beta_per_eV

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return the contrast; zero where no chain has the composition of any datum."""
        assert step.chains is not None, "the trainer brings the chains"
        assert step.energy_of is not None, "the objective brings the student"
        alike = same_composition(step.graph, step.chains)
        energy = step.energy_of(step.chains)
        above = contrast(step.student.energy, energy, alike)
        return step.mean(above, term=self.name) * self.beta_per_eV

    def count_items(self, step: DistillationStep) -> tuple[int]:
        """Return the number of structures that have chains of their composition."""
        assert step.chains is not None, "the trainer brings the chains"
        alike = same_composition(step.graph, step.chains)
        return (int(alike.any(dim=1).sum()),)


def contrast(
    data: Float[Tensor, " structure"],
    chains: Float[Tensor, " chain"],
    alike: Bool[Tensor, "structure chain"],
) -> Float[Tensor, " compared"]:
    """Return U(x) less the mean energy of its chains, for every x that has some, in eV.

    A constant of a composition, its zero of energy, drops out.
    """
    compared = alike.any(dim=1)
    weights = alike[compared].double()
    means = (weights @ chains.double()) / weights.sum(dim=1)
    # total energies of hundreds of eV: the difference first, and then rounded
    return (data.double()[compared] - means).float()


def same_composition(
    one: AtomGraph, other: AtomGraph
) -> Bool[Tensor, "structure other"]:
    """Return which structures of two graphs are made of the same atoms."""
    counts = _counts(one).unsqueeze(1), _counts(other).unsqueeze(0)
    return (counts[0] == counts[1]).all(dim=-1)


def _counts(graph: AtomGraph) -> Int[Tensor, "structure element"]:
    """Return how many atoms of every element each structure has."""
    n_elements = 119
    counts = torch.zeros(
        graph.n_structures, n_elements, dtype=torch.long, device=graph.batch.device
    )
    ones = torch.ones_like(graph.batch)
    return counts.index_put((graph.batch, graph.atomic_numbers), ones, accumulate=True)


class CrmseConfig(LossSection):
    """Raise the energy of what the student's own dynamics drifts into.

    Beside losses on energies and forces, which alone fix the zero of energy; for
    gradient forces, since others do not sample exp(−U/kT).
    """

    kind: Literal["crmse"]
    temperature_K: float = Field(gt=0)
    """Of the data, and so of the chains; MD17's molecules are hotter than its 500 K."""
    weight: float = Field(gt=0)
    """λ at the start; halved at each validation that finds it has done enough."""
    chains: int = Field(default=64, ge=1)
    steps_per_update: int = Field(default=5, ge=1)
    """Steps of dynamics per step of training."""
    equilibrate_steps: int = Field(default=200, ge=0)
    """Steps of dynamics before the first step of training."""
    timestep_fs: float = Field(default=0.5, gt=0)
    friction_per_ps: float = Field(default=10.0, gt=0)

    def build_terms(self, name: str, run: TrainedOn) -> list[WeightedTerm]:
        """Return the term under this name, with its weight."""
        loss = CrmseLoss(1 / (units.kB * self.temperature_K))
        return [WeightedTerm(loss, self.weight)]
