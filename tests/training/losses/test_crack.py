"""The relational loss: exact numbers first, then what must not change it."""

import dataclasses
import math

import pytest
import torch

from crack_md.graph import AtomGraph
from crack_md.training.loop.heads import FeatureHead
from crack_md.training.losses import DistillationStep, Features
from crack_md.training.losses.crack import (
    AtomPairs,
    both_directions,
    relations,
    unique_pairs,
    unit_features,
)
from tests.factories import graph_of, oxygen_slab, tiny_model, water
from tests.training.factories import crack_term, random_graph, step_of


def test_relation_is_a_unit_difference_of_unit_vectors() -> None:
    features = unit_features(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), degree=0)
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


EVERY_WAY = [
    {},
    {"pairs": "directed"},
    {"negatives": "global"},
    {"anchor": "both"},
    {"same_elements": True},
    {"same_elements": True, "negatives": "global"},
    {"same_elements": True, "pairs": "directed"},
    {"sample": 99},
    {"sample": 99, "same_elements": True, "negatives": "global"},
]


def few_elements(sizes: list[int]) -> AtomGraph:
    graph = random_graph(sizes, n_slots=6)
    return graph._replace(atomic_numbers=graph.atomic_numbers % 3 + 27)


@pytest.mark.parametrize("options", EVERY_WAY)
def test_numbering_changes_nothing(options: dict[str, object]) -> None:
    graph = few_elements([9, 9])
    step = step_of(graph, seed=8)
    atoms, structures = torch.randperm(9), torch.tensor([1, 0])
    order = torch.cat([atoms + 9 * number for number in structures])
    moved = step_of(
        graph._replace(
            atomic_numbers=graph.atomic_numbers[order],
            neighbors=order.argsort()[graph.neighbors[order]],
            mask=graph.mask[order],
        ),
        features=[step.features[0].student[order], step.features[0].teacher[order]],
    )
    term = crack_term(**options)
    assert term(moved).item() == pytest.approx(term(step).item(), rel=1e-5)


@pytest.mark.parametrize("negatives", ["structure", "global"])
def test_unique_pairs_equal_directed_ones_among_the_same_elements(
    negatives: str,
) -> None:
    step = step_of(few_elements([6, 9, 4]), seed=1)
    losses = [
        crack_term(pairs=pairs, negatives=negatives, same_elements=True)(step)
        for pairs in ("unique", "directed")
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)


def square(numbers: list[int]) -> AtomGraph:
    """Return four atoms, each a neighbor of the next."""
    neighbors = torch.tensor([[1], [2], [3], [0]])
    return random_graph([4])._replace(
        atomic_numbers=torch.tensor(numbers),
        neighbors=neighbors,
        cell_shift=torch.zeros(4, 1, 3),
        mask=torch.ones(4, 1).bool(),
    )


def test_pairs_of_other_elements_are_no_negatives() -> None:
    student, teacher = torch.randn(2, 4, 5).unbind()

    def loss(numbers: list[int], **changes: object) -> float:
        step = step_of(square(numbers), features=[student, teacher])
        return crack_term(temperature=0.5, **changes)(step).item()

    # four pairs of four kinds, each alone with nothing to be told from
    assert loss([1, 6, 7, 8], same_elements=True) == pytest.approx(0, abs=1e-6)
    # one element: all pairs are negatives of each other
    plain = loss([6, 6, 6, 6])
    assert loss([6, 6, 6, 6], same_elements=True) == pytest.approx(plain, rel=1e-6)
    # two pairs of C-C and two of C-O: what is in between
    assert 0 < loss([6, 6, 6, 8], same_elements=True) < plain


def test_direction_of_a_lone_pair_of_one_element_is_learned() -> None:
    graph = square([6, 6, 6, 6])._replace(mask=torch.eye(4, 1).bool())
    features = torch.randn(4, 5)
    step = step_of(graph, features=[features, features])
    loss = crack_term(temperature=0.5, same_elements=True)(step)
    # against its own reverse: log[(e² + e⁻²)/e²]
    assert loss.item() == pytest.approx(math.log1p(math.exp(-4)), rel=1e-5)


def test_a_sample_of_pairs_is_reproducible() -> None:
    step = step_of(random_graph([20, 30]), seed=9)
    term = crack_term(sample=4)
    torch.manual_seed(5)
    first, second = term(step).item(), term(step).item()
    assert first != second
    torch.manual_seed(5)
    assert term(step).item() == first
    exact = crack_term()(step).item()
    mean = sum(term(step).item() for _ in range(200)) / 200
    assert mean < exact
    assert mean == pytest.approx(exact, rel=0.15)


def with_degrees(step: DistillationStep, *features: Features) -> DistillationStep:
    return dataclasses.replace(step, features=features)


def test_degrees_count_alike() -> None:
    step = step_of(random_graph([7, 5]), seed=10)
    student, teacher = torch.randn(2, 12, 15).unbind()
    zeroth, first = step.features[0], Features(teacher, student)
    alone = [crack_term()(with_degrees(step, one)).item() for one in (zeroth, first)]
    both = crack_term(degrees=(0, 1))(with_degrees(step, zeroth, first)).item()
    assert both == pytest.approx(sum(alone) / 2)
    only = crack_term(degrees=(1,))(with_degrees(step, zeroth, first)).item()
    assert only == pytest.approx(alone[1])


def test_relations_of_degrees_turn_with_the_structure() -> None:
    teacher, student = tiny_model(seed=1), tiny_model(seed=2)
    head = FeatureHead(8, 8, spreads=[1.0, 1.0])
    molecule, slab = water(), oxygen_slab()

    def loss(*degrees: int) -> float:
        graph = graph_of(student, molecule, slab)
        features = head.by_degree(
            *(model(graph).node_features for model in (student, teacher))
        )
        return crack_term(degrees=degrees)(with_degrees(step_of(graph), *features))

    before = [loss(degree).item() for degree in range(3)]
    assert len({round(value, 3) for value in before}) == 3
    molecule.rotate(50, (1, 2, 3))  # each structure on its own way
    slab.rotate(70, (3, -1, 1), rotate_cell=True)
    assert [loss(degree).item() for degree in range(3)] == pytest.approx(
        before, rel=1e-4
    )


def test_vanishing_degrees_cost_nothing() -> None:
    noise = 1e-6 * torch.randn(2, 6, 15)
    student = noise[0].requires_grad_()
    step = with_degrees(
        step_of(random_graph([6])),
        Features(noise[1], student),
        Features(noise[1], student),
    )
    loss = crack_term(degrees=(1,))(step)
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad is not None
    assert student.grad.abs().max() == 0.0
