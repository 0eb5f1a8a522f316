"""Energy, force and feature terms on numbers worked out by hand."""

import dataclasses

import pytest
import torch

from crack_md.training.losses import EnergyLoss, Features, ForceLoss, NodeToNodeLoss
from crack_md.training.losses.n2n import squared_distances
from crack_md.training.losses.supervised import energy_errors, force_errors
from tests.training.factories import random_graph, step_of


def step():  # type: ignore[no-untyped-def]
    base = step_of(random_graph([1, 3]))
    student = base.student._replace(
        energy=torch.tensor([1.0, 2.0], dtype=torch.float64),
        forces=torch.tensor([[3.0, 4, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]),
    )
    teacher = base.teacher._replace(
        energy=torch.tensor([1.5, 5.0], dtype=torch.float64)
    )
    labels = base.labels._replace(free=torch.tensor([False, True, True, False]))
    return type(base)(base.graph, student, teacher, labels, features=base.features)


def test_energy_loss_in_units_of_sigma() -> None:
    assert EnergyLoss("task", 2.0, False)(step()).item() == pytest.approx(0.75)
    assert EnergyLoss("output", 2.0, False)(step()).item() == pytest.approx(0.875)


def test_energy_loss_per_atom() -> None:
    found = EnergyLoss("output", 1.0, True)(step())
    assert found.item() == pytest.approx((0.5 + 1.0) / 2)


def test_force_loss_is_a_mean_of_lengths() -> None:
    assert ForceLoss("task", 2.0)(step()).item() == pytest.approx((1 + 0) / 2 / 2)
    assert ForceLoss("output", 2.0)(step()).item() == pytest.approx((5 + 1) / 4 / 2)


def test_names_tell_the_source() -> None:
    assert EnergyLoss("output", 1.0, False).name == "output_energy"
    assert ForceLoss("task", 1.0).name == "task_forces"


def test_no_free_atom_gives_zero() -> None:
    nothing = step()
    labels = nothing.labels._replace(free=torch.zeros(4).bool())
    nothing = type(nothing)(nothing.graph, nothing.student, None, labels)
    assert ForceLoss("task", 1.0)(nothing).item() == 0.0


def test_large_energies_keep_their_differences() -> None:
    energy = torch.tensor([-12345.6789], dtype=torch.float64)
    error = energy_errors(energy + 1e-4, energy)
    assert error.item() == pytest.approx(1e-4, rel=1e-4)


def test_equal_forces_have_a_finite_gradient() -> None:
    forces = torch.zeros(2, 3, requires_grad=True)
    force_errors(forces, torch.zeros(2, 3)).sum().backward()
    assert forces.grad.isfinite().all()


def test_node_to_node_sums_channels_and_averages_atoms() -> None:
    student = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    teacher = torch.tensor([[0.0, 0.0], [0.0, 3.0]])
    assert squared_distances(student, teacher).tolist() == [5.0, 9.0]
    graph = random_graph([2])
    assert NodeToNodeLoss()(step_of(graph, features=[student, teacher])).item() == 7.0


def test_node_to_node_adds_degrees() -> None:
    step = step_of(random_graph([2]), features=[torch.zeros(2, 1), torch.ones(2, 1)])
    first = Features(torch.zeros(2, 3), 2 * torch.ones(2, 3))
    step = dataclasses.replace(step, features=(step.features[0], first))
    assert NodeToNodeLoss()(step).item() == 1.0
    assert NodeToNodeLoss((0, 1))(step).item() == 1.0 + 12.0


def test_equal_features_cost_nothing() -> None:
    graph = random_graph([4])
    same = torch.randn(4, 3)
    assert NodeToNodeLoss()(step_of(graph, features=[same, same])).item() == 0.0
