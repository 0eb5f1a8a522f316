"""The relational loss: exact numbers first, then what must not change it."""

import math

import pytest
import torch

from crack_md.graph import AtomGraph
from crack_md.training.losses.crack import relations
from crack_md.training.losses.pairs import AtomPairs, both_directions, unique_pairs
from tests.training.factories import crack_term, random_graph, step_of


def test_relation_is_a_unit_difference_of_unit_vectors() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    pair = AtomPairs(torch.tensor([0]), torch.tensor([1]))
    direction, length = relations(features, pair, smallest_difference=1e-3)
    half = math.sqrt(0.5)
    assert torch.allclose(direction, torch.tensor([[half, -half]]))
    assert length.item() == pytest.approx(math.sqrt(2))


def test_periodic_images_merge_and_self_images_drop() -> None:
    graph = AtomGraph(
        positions=torch.zeros(3, 3),
        atomic_numbers=torch.tensor([29, 29, 29]),
        cell=torch.eye(3).expand(2, 3, 3),
        pbc=torch.ones(2, 3).bool(),
        batch=torch.tensor([0, 0, 1]),
        # 0: twice its neighbor 1, once itself; 1: the pair seen from the other end
        neighbors=torch.tensor([[1, 1, 0], [0, 1, 1], [2, 2, 2]]),
        cell_shift=torch.zeros(3, 3, 3),
        mask=torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool(),
    )
    pairs = unique_pairs(graph)
    assert pairs.first.tolist() == [0]
    assert pairs.second.tolist() == [1]


def test_both_directions_list_every_pair_twice() -> None:
    directed = both_directions(AtomPairs(torch.tensor([0, 2]), torch.tensor([1, 3])))
    assert directed.first.tolist() == [0, 2, 1, 3]
    assert directed.second.tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("negatives", ["structure", "global"])
@pytest.mark.parametrize("anchor", ["teacher", "student", "both"])
def test_unique_pairs_equal_directed_ones(negatives: str, anchor: str) -> None:
    step = step_of(random_graph([6, 9, 4]), seed=1)
    losses = [
        crack_term(pairs=pairs, negatives=negatives, anchor=anchor)(step)
        for pairs in ("unique", "directed")
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)


@pytest.mark.parametrize("pairs", ["unique", "directed"])
@pytest.mark.parametrize("negatives", ["structure", "global"])
def test_renumbering_the_atoms_changes_nothing(pairs: str, negatives: str) -> None:
    graph = random_graph([8])
    term = crack_term(pairs=pairs, negatives=negatives)
    step = step_of(graph, seed=2)
    order = torch.tensor([3, 1, 7, 0, 6, 2, 5, 4])
    moved = step_of(
        graph._replace(
            neighbors=order.argsort()[graph.neighbors[order]], mask=graph.mask[order]
        ),
        features=[
            part[order] for part in (step.features[0].student, step.features[0].teacher)
        ],
    )
    assert term(moved).item() == pytest.approx(term(step).item(), rel=1e-6)


def test_structures_are_contrasted_on_their_own() -> None:
    graph = random_graph([6, 9])
    both = crack_term()(step_of(graph, seed=3))
    step = step_of(graph, seed=3)
    single, counts = [], []
    for number in (0, 1):
        atoms = graph.batch == number
        first = int(atoms.nonzero()[0])
        alone = graph._replace(
            batch=graph.batch[atoms] * 0,
            cell=graph.cell[:1],
            pbc=graph.pbc[:1],
            positions=graph.positions[atoms],
            atomic_numbers=graph.atomic_numbers[atoms],
            neighbors=graph.neighbors[atoms] - first,
            cell_shift=graph.cell_shift[atoms],
            mask=graph.mask[atoms],
        )
        counts.append(len(unique_pairs(alone).first))
        features = [
            part[atoms] for part in (step.features[0].student, step.features[0].teacher)
        ]
        single.append(crack_term()(step_of(alone, features=features)).item())
    mean = sum(c * s for c, s in zip(counts, single, strict=True)) / sum(counts)
    assert both.item() == pytest.approx(mean, rel=1e-6)
    assert crack_term(negatives="global")(step).item() > both.item()


@pytest.mark.parametrize("negatives", ["structure", "global"])
def test_one_atom_gives_zero_and_a_gradient(negatives: str) -> None:
    step = step_of(random_graph([1]), seed=4, requires_grad=True)
    loss = crack_term(negatives=negatives)(step)
    loss.backward()
    assert loss.item() == 0.0
    assert step.features[0].student.grad.abs().sum() == 0.0


def test_equivalent_teacher_atoms_are_left_out() -> None:
    step = step_of(random_graph([6]), seed=5, requires_grad=True)
    teacher = step.features[0].teacher.clone()
    teacher[1] = teacher[0] * (1 + 1e-6)
    step = step_of(step.graph, features=[step.features[0].student, teacher])
    loss = crack_term()(step)
    loss.backward()
    gradient = step.features[0].student.grad
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e2


def test_equal_student_atoms_keep_the_gradient_small() -> None:
    step = step_of(random_graph([6]), seed=6, requires_grad=True)
    student = step.features[0].student.detach().clone()
    student[1] = student[0]
    student.requires_grad_()
    crack_term()(
        step_of(step.graph, features=[student, step.features[0].teacher])
    ).backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 1e4  # the public formula reaches 1e9
