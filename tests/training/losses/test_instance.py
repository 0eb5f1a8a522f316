"""Contrast on atoms: exact numbers, and what must not change it."""

import math

import pytest
import torch

from crack_md.training.losses import InstanceLoss
from tests.training.factories import contrast, random_graph, step_of


def instance(*, same_elements: bool = False, **changes: object) -> InstanceLoss:
    return InstanceLoss(contrast(**changes), same_elements)


def test_identical_atoms_give_the_log_of_their_number() -> None:
    same = torch.ones(6, 3)
    step = step_of(random_graph([6]), features=[same, same])
    assert instance()(step).item() == pytest.approx(math.log(6), rel=1e-6)


@pytest.mark.parametrize(("negatives", "others"), [("structure", 2), ("global", 5)])
def test_orthogonal_atoms_have_a_closed_form(negatives: str, others: int) -> None:
    eye = torch.eye(6)
    # lengths do not matter, directions do
    step = step_of(random_graph([3, 3]), features=[5 * eye, 0.1 * eye])
    expected = math.log(math.exp(2) + others) - 2
    loss = instance(temperature=0.5, negatives=negatives)(step)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("negatives", ["structure", "global"])
@pytest.mark.parametrize("anchor", ["teacher", "student", "both"])
def test_order_of_atoms_and_structures_changes_nothing(
    negatives: str, anchor: str
) -> None:
    term = instance(negatives=negatives, anchor=anchor)
    graph = random_graph([5, 3])
    step = step_of(graph, seed=1)
    order = torch.tensor([6, 7, 5, 3, 0, 4, 1, 2])
    moved = step_of(
        graph._replace(batch=torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])),
        features=[step.features[0].student[order], step.features[0].teacher[order]],
    )
    assert term(moved).item() == pytest.approx(term(step).item(), rel=1e-6)


def test_rotation_of_channels_changes_nothing() -> None:
    step = step_of(random_graph([7]), seed=2)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5))
    features = step.features[0]
    turned = [features.student @ rotation, features.teacher @ rotation]
    loss = instance()(step_of(step.graph, features=turned))
    assert loss.item() == pytest.approx(instance()(step).item(), rel=1e-5)


def test_one_atom_gives_zero_and_a_gradient() -> None:
    step = step_of(random_graph([1, 1]), seed=3, requires_grad=True)
    loss = instance()(step)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    gradient = step.features[0].student.grad
    assert gradient is not None
    assert gradient.abs().max() < 1e-5


def test_zero_features_stay_finite() -> None:
    step = step_of(random_graph([4]), features=[torch.zeros(4, 3), torch.ones(4, 3)])
    assert instance()(step).isfinite()


@pytest.mark.parametrize("negatives", ["structure", "global"])
def test_atoms_of_other_elements_are_no_negatives(negatives: str) -> None:
    graph = random_graph([3, 2])
    graph = graph._replace(atomic_numbers=torch.tensor([6, 6, 8, 6, 8]))
    same = torch.ones(5, 3)
    step = step_of(graph, features=[same, same])
    pools = [2, 2, 1, 1, 1] if negatives == "structure" else [3, 3, 2, 3, 2]
    expected = sum(math.log(pool) for pool in pools) / 5
    loss = instance(same_elements=True, negatives=negatives)(step)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
