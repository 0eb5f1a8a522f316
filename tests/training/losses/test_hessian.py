"""Rows of the force Jacobian: springs first, then real students."""

import dataclasses

import ase
import pytest
import torch
from torch import Tensor

from crack_md.graph import AtomGraph
from crack_md.models.force_field import ForceField, Prediction
from crack_md.training.data.frames import JacobianBatch
from crack_md.training.losses import DistillationStep, HessianLoss
from crack_md.training.losses.hessian import row_by_differences, row_by_gradient
from tests.factories import graph_of, oxygen_slab, tiny_model, water
from tests.training.factories import random_graph, step_of

SPRING = 2.5
"""eV/Å², between neighbors of a chain along x."""


def chain(graph: AtomGraph) -> Prediction:
    """Return the forces of atoms on springs, E = Σ k/2 (x_{i+1} − x_i)²."""
    x = graph.positions[:, 0]
    same = graph.batch[1:] == graph.batch[:-1]
    stretch = torch.where(same, x[1:] - x[:-1], 0.0)
    forces = torch.zeros_like(x)
    forces = forces.index_add(0, torch.arange(len(x) - 1), SPRING * stretch)
    forces = forces.index_add(0, torch.arange(1, len(x)), -SPRING * stretch)
    forces = torch.stack([forces, 0 * x, 0 * x], dim=1)
    energy = torch.zeros(graph.n_structures, dtype=torch.float64)
    return Prediction(energy, forces, None, torch.zeros(len(x), 1, 0))


def chain_step(jacobian: JacobianBatch) -> DistillationStep:
    """Return a chain of three atoms and one of two."""
    graph = random_graph([3, 2])
    graph = graph._replace(positions=graph.positions.clone().requires_grad_())
    base = step_of(graph)
    return dataclasses.replace(
        base, graph=graph, student=chain(graph), model=chain, jacobian=jacobian
    )


ROWS = JacobianBatch(
    atom=torch.tensor([[1, 0], [3, 4]]),  # counted through the batch
    axis=torch.tensor([[0, 1], [0, 0]]),
    values=torch.zeros(2, 5, 3),
)
MIDDLE = torch.tensor([1.0, -2.0, 1.0]) * SPRING
END = torch.tensor([-1.0, 1.0]) * SPRING


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_rows_of_a_chain_of_springs(forces: str) -> None:
    step = chain_step(ROWS)
    found = []
    for k in (0, 1):
        where = {"atom": ROWS.atom[:, k], "axis": ROWS.axis[:, k]}
        if forces == "gradient":
            row = row_by_gradient(step.student.forces, step.graph.positions, **where)
        else:
            row = row_by_differences(chain, step.graph, step_A=0.01, **where)
        found.append(row)
    nothing = torch.zeros(3)
    for row, along_x in zip(
        found, [torch.cat([MIDDLE, END]), torch.cat([nothing, -END])], strict=True
    ):
        assert torch.allclose(row[:, 0], along_x, atol=1e-4)
        assert row[:, 1:].abs().max() == 0


@pytest.mark.parametrize("method", ["gradient", "differences"])
def test_loss_against_no_springs_is_their_mean(method: str) -> None:
    term = HessianLoss(method, rows=2, sigma_eV=0.5, step_A=0.01)
    loss = term(chain_step(ROWS))
    # row 0 has entries 1, 2, 1 and 1, 1; row 1 has 0, 0, 0 and 1, 1; ten atoms in all
    assert loss.item() == pytest.approx(8 * SPRING / 10 / 0.5, rel=1e-4)


def test_few_rows_are_drawn_from_those_at_hand() -> None:
    term = HessianLoss("gradient", rows=1, sigma_eV=1.0, step_A=0.01)
    step = chain_step(ROWS)
    drawn = {round(term(step).item() / SPRING, 4) for _ in range(20)}
    assert drawn == {1.2, 0.4}  # either row, never both
    torch.manual_seed(7)
    first = [term(step).item() for _ in range(5)]
    torch.manual_seed(7)
    assert first == [term(step).item() for _ in range(5)]


def all_rows(model: ForceField, *structures: ase.Atoms) -> JacobianBatch:
    """Return every row of a model's Jacobian, padded by repetition."""
    graph = graph_of(model, *structures)
    n_rows = 3 * max(map(len, structures))
    sizes = torch.bincount(graph.batch)
    first = (sizes.cumsum(0) - sizes)[:, None]
    number = torch.arange(n_rows)[None] % (3 * sizes[:, None])
    atom, axis = first + number // 3, number % 3
    values = [
        row_by_differences(
            model, graph, atom=atom[:, k], axis=axis[:, k], step_A=1e-4
        ).detach()
        for k in range(n_rows)
    ]
    return JacobianBatch(atom, axis, torch.stack(values))


def student_step(
    model: ForceField, jacobian: JacobianBatch, *structures: ase.Atoms
) -> DistillationStep:
    graph = graph_of(model, *structures)
    if model.forces == "gradient":
        graph = graph._replace(positions=graph.positions.requires_grad_())
    step = step_of(graph)
    return dataclasses.replace(
        step, student=model(graph), model=model, jacobian=jacobian
    )


METHOD = {"gradient": "gradient", "direct": "differences"}


def hessian(model: ForceField, **changes: object) -> HessianLoss:
    options = {"rows": 99, "sigma_eV": 1.0, "step_A": 1e-4} | changes
    options = {"method": METHOD[model.forces]} | options
    return HessianLoss(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_own_jacobian_costs_nothing(forces: str) -> None:
    model = tiny_model(forces=forces).train()
    pair = water(), ase.Atoms("Pt2", [[0, 0, 0], [0.3, 1, 2.2]])
    step = student_step(model, all_rows(model, *pair), *pair)
    assert hessian(model)(step).item() < 1e-5
    assert hessian(model, method="differences")(step).item() < 1e-5
    other = tiny_model(forces=forces, seed=1).train()
    step = student_step(other, step.jacobian, *pair)
    assert hessian(other)(step).item() > 1e-2


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_gradient_for_the_weights_is_the_slope(forces: str) -> None:
    teacher, model = (tiny_model(forces=forces, seed=seed) for seed in (1, 0))
    model.train()
    jacobian = all_rows(teacher, water())
    term = hessian(model, step_A=1e-3)
    weight = model.network.blocks[0].ga.so2_conv_1.fc_m0.weight
    term(student_step(model, jacobian, water())).backward()
    assert weight.grad is not None
    direction = torch.randn_like(weight)
    expected = (weight.grad * direction).sum().item()

    def loss(shift: float) -> float:
        with torch.no_grad():
            weight.add_(shift * direction)
        value = term(student_step(model, jacobian, water())).item()
        with torch.no_grad():
            weight.sub_(shift * direction)
        return value

    slope = (loss(1e-4) - loss(-1e-4)) / 2e-4
    assert expected == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_rotation_and_order_change_nothing(forces: str) -> None:
    teacher, model = (tiny_model(forces=forces, seed=seed) for seed in (1, 0))
    slab, molecule = oxygen_slab()[-3:], water()
    loss = hessian(model)(
        student_step(model.train(), all_rows(teacher, slab, molecule), slab, molecule)
    )
    # all rows together do not depend on the axes, if these turn onto each other
    for one in (slab, molecule):
        one.rotate(90, "x", rotate_cell=True)
        one.rotate(90, "z", rotate_cell=True)
    slab = slab[[2, 0, 1]]
    turned = hessian(model)(
        student_step(model, all_rows(teacher, molecule, slab), molecule, slab)
    )
    assert turned.item() == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_one_atom_gives_zero_and_a_gradient(forces: str) -> None:
    model = tiny_model(forces=forces).train()
    atom = ase.Atoms("Pt", cell=[2.5, 2.6, 2.7], pbc=True)
    zeros = JacobianBatch(
        torch.zeros(1, 3).long(), torch.arange(3)[None], torch.zeros(3, 1, 3)
    )
    loss = hessian(model)(student_step(model, zeros, atom))
    loss.backward()
    assert loss.item() < 1e-9
    grads: list[Tensor] = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(grad.isfinite().all() for grad in grads)
