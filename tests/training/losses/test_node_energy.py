"""Energies of single atoms on numbers worked out by hand."""

import dataclasses

import pytest
import torch

from crack_md.training.losses import DistillationStep, NodeEnergyLoss, OneRank
from crack_md.training.losses.node_energy import without_element_means
from tests.training.factories import random_graph, step_of

NUMBERS = torch.tensor([8, 29, 8, 29, 29])


def step(student: list[float], teacher: list[float]) -> DistillationStep:
    graph = random_graph([2, 3])._replace(atomic_numbers=NUMBERS)
    base = step_of(graph)
    assert base.teacher is not None
    return dataclasses.replace(
        base,
        student=base.student._replace(
            node_energy=torch.tensor(student, dtype=torch.float64)
        ),
        teacher=base.teacher._replace(
            node_energy=torch.tensor(teacher, dtype=torch.float64)
        ),
    )


def test_squares_in_units_of_sigma() -> None:
    one = step([1.0, 2, 3, 4, 5], [1.0, 2, 3, 2, 1])
    assert NodeEnergyLoss(1.0, False)(one).item() == pytest.approx((4 + 16) / 5)
    assert NodeEnergyLoss(2.0, False)(one).item() == pytest.approx((1 + 4) / 5)


def test_shift_leaves_what_is_not_a_constant_of_the_element() -> None:
    # oxygen differs by 7 ± 1, copper by −3 and (1, −2, 1) around it
    one = step([8.0, -2, 6, -5, -2], [0.0] * 5)
    loss = NodeEnergyLoss(1.0, True)(one)
    assert loss.item() == pytest.approx((1 + 1 + 1 + 4 + 1) / 5)


def test_constants_of_elements_cost_nothing_with_shift() -> None:
    student = torch.randn(5).double()
    shift = torch.where(NUMBERS == 8, 4.0, -2.5)
    one = step(student.tolist(), (student + shift).tolist())
    assert NodeEnergyLoss(1.0, True)(one).item() == pytest.approx(0, abs=1e-12)
    assert NodeEnergyLoss(1.0, False)(one).item() > 1


def test_the_only_atom_of_an_element_tells_nothing_with_shift() -> None:
    left = without_element_means(
        torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1, 6, 6]), OneRank()
    )
    assert left.tolist() == [0.0, -0.5, 0.5]


def test_means_are_those_of_all_processes() -> None:
    difference, numbers = torch.randn(6), torch.tensor([1, 1, 6, 6, 1, 6])

    class TwoRanks(OneRank):
        """The first of two processes; the second holds the last two atoms."""

        def gather(self, rows: torch.Tensor) -> torch.Tensor:
            other = torch.zeros(2, 128)
            other[0, numbers[4:]] = difference[4:]
            other[1, numbers[4:]] = 1
            return torch.cat([rows, other.view(1, -1)])

    whole = without_element_means(difference, numbers, OneRank())
    part = without_element_means(difference[:4], numbers[:4], TwoRanks())
    assert torch.allclose(part, whole[:4])


@pytest.mark.parametrize("shift", [False, True])
def test_order_of_atoms_changes_nothing(shift: bool) -> None:
    student, teacher = torch.randn(2, 5).tolist()
    order = torch.tensor([1, 0, 4, 2, 3])
    first = step(student, teacher)
    second = step([student[i] for i in order], [teacher[i] for i in order])
    graph = second.graph._replace(atomic_numbers=NUMBERS[order])
    second = dataclasses.replace(second, graph=graph)
    term = NodeEnergyLoss(0.3, shift)
    assert term(second).item() == pytest.approx(term(first).item(), rel=1e-6)


def test_large_energies_keep_their_differences() -> None:
    one = step([-12345.6789] * 5, [-12345.6788] * 5)
    assert NodeEnergyLoss(1e-4, False)(one).item() == pytest.approx(1.0, rel=1e-4)
