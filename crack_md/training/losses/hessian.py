"""Hessian: match rows of the teacher's force Jacobian, ∂F/∂r."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from crack_md.graph import AtomGraph
from crack_md.models.force_field import Prediction
from crack_md.training.losses.base import (
    DistillationStep,
    Label,
    LossSection,
    TrainedOn,
    Weight,
    WeightedTerm,
    energy_spread,
)

Method = Literal["gradient", "differences"]


def row_by_gradient(
    forces: Float[Tensor, "atom 3"],
    positions: Float[Tensor, "atom 3"],
    *,
    atom: Int[Tensor, " structure"],
    axis: Int[Tensor, " structure"],
) -> Float[Tensor, "atom 3"]:
    """Return ∂F_j/∂r in eV/Å² for all atoms j and one coordinate of every structure.

    What is computed is ∂F_ia/∂r_j, one backward pass for the whole batch. Where forces
    are the gradient of an energy both are the same second derivative.

    Args:
        forces: Gradient forces that still have their graph.
        positions: What they were computed from.
        atom: The atom i of every structure, counted through the batch.
        axis: The direction a in which it moves.
    """
    chosen = _unit_moves(forces, atom, axis)
    (row,) = torch.autograd.grad(forces, positions, chosen, create_graph=True)
    return row


def row_by_differences(
    model: Callable[[AtomGraph], Prediction],
    graph: AtomGraph,
    *,
    atom: Int[Tensor, " structure"],
    axis: Int[Tensor, " structure"],
    step_A: float,
) -> Float[Tensor, "atom 3"]:
    """Return [F_j(r + h) − F_j(r − h)]/2h in eV/Å² for one coordinate per structure.

    Works for any forces, at the price of two more forward passes. The neighbor table
    stays as it is: neighbors of the smooth rule have no weight where they come and go.
    """
    move = step_A * _unit_moves(graph.positions, atom, axis)
    ahead, behind = (
        model(graph._replace(positions=graph.positions + sign * move)).forces
        for sign in (1, -1)
    )
    return (ahead - behind) / (2 * step_A)


def _unit_moves(like: Tensor, atom: Tensor, axis: Tensor) -> Float[Tensor, "atom 3"]:
    moves = torch.zeros_like(like)
    moves[atom, axis] = 1
    return moves


def row_errors(
    rows: Float[Tensor, "row atom 3"], teacher: Float[Tensor, "row atom 3"]
) -> Float[Tensor, "row atom"]:
    """Return ‖∂F_j/∂r − ∂F_j/∂r of the teacher‖ in eV/Å² for every row and atom j."""
    return torch.linalg.vector_norm(rows.float() - teacher.float(), dim=-1)


@dataclass(frozen=True)
class HessianLoss:
    """Mean ‖∂F_j/∂r_ia − the teacher's‖/σ over a few rows (i, a) and all atoms j.

    Each step draws its rows from those that the teacher's labels hold. Row k is drawn
    for all structures of the batch at once: they do not see each other, so one
    derivative serves them all.
    """

    method: Method
    """Direct forces know differences alone: their Jacobian is not symmetric."""
    rows: int
    """Drawn per step; all of them where the labels have fewer."""
    sigma_eV: float
    """The error is in units of σ/Å²."""
    step_A: float
    """Displacement of central differences, in Å."""
    name: str = "hessian"

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return the mean over rows and atoms."""
        jacobian = step.jacobian
        assert jacobian is not None, "checked when the labels are read"
        n_held = len(jacobian.values)
        # the global state: checkpoints hold it, and all processes draw the same
        drawn = torch.randperm(n_held)[: self.rows].to(jacobian.values.device)
        rows = [
            self._row(step, jacobian.atom[:, row], jacobian.axis[:, row])
            for row in drawn
        ]
        errors = row_errors(torch.stack(rows), jacobian.values[drawn])
        return step.mean(errors.flatten(), term=self.name) / self.sigma_eV

    def count_items(self, step: DistillationStep) -> tuple[int]:
        """Return the number of atoms times that of drawn rows."""
        assert step.jacobian is not None, "checked when the labels are read"
        return (min(self.rows, len(step.jacobian.values)) * step.graph.n_atoms,)

    def _row(
        self, step: DistillationStep, atom: Tensor, axis: Tensor
    ) -> Float[Tensor, "atom 3"]:
        if self.method == "gradient":
            forces, positions = step.student.forces, step.graph.positions
            return row_by_gradient(forces, positions, atom=atom, axis=axis)
        assert step.model is not None, "the objective hands its student on"
        return row_by_differences(
            step.model, step.graph, atom=atom, axis=axis, step_A=self.step_A
        )


class HessianConfig(LossSection):
    """Sampled rows of the force Jacobian, in units of σ/Å²."""

    kind: Literal["hessian"]
    weight: Weight
    rows: int = Field(default=1, ge=1)
    """Rows per structure and step, drawn from those that the labels hold."""
    sigma_eV: float | None = Field(default=None, gt=0)
    """σ; by default the energy spread of the training set."""
    differences: bool = False
    """Move atoms even where forces are a gradient (direct forces leave no choice): two
    more passes per row. On the symmetric sites of perfect crystals the norms of the
    network bend sharply within 0.01 Å; differences look past that, as phonons do."""
    step_A: float = Field(default=0.01, gt=0)
    """How far atoms are moved, in Å."""

    @property
    def reads(self) -> tuple[Label, ...]:
        """Return what is read of the teacher."""
        return ("jacobian",)

    def build_terms(self, name: str, run: TrainedOn) -> list[WeightedTerm]:
        """Return the term under this name, with its weight."""
        sigma = self.sigma_eV or energy_spread(
            run.train, run.student.scale, per_atom=False
        )
        by_gradient = run.student.forces == "gradient" and not self.differences
        method: Method = "gradient" if by_gradient else "differences"
        loss = HessianLoss(method, self.rows, sigma, self.step_A, name=name)
        return [WeightedTerm(loss, self.weight)]
