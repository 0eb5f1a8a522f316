"""Angles between relations: known ones, their number, and what must not matter."""

import math

import ase
import pytest
import torch
from ase.build import bulk
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from crack_md.graph import AtomGraph, batch_graphs
from crack_md.neighbors import SmoothNeighbors, build_graph
from crack_md.training.losses import TripletLoss
from crack_md.training.losses.triplet import ranked_neighbors, relation_angles
from tests.factories import oxygen_slab, water
from tests.training.factories import random_graph, step_of

RULE = SmoothNeighbors(4.0)


def star(*distances: float) -> AtomGraph:
    """Return an atom with neighbors on a line, which have none themselves."""
    n = len(distances) + 1
    graph = random_graph([n], n_slots=n - 1)
    mask = torch.zeros(n, n - 1).bool()
    mask[0] = True
    neighbors = torch.arange(n)[:, None].repeat(1, n - 1)
    neighbors[0] = torch.arange(1, n)
    positions = torch.zeros(n, 3)
    positions[1:, 0] = torch.tensor(distances)
    return graph._replace(positions=positions, neighbors=neighbors, mask=mask)


def triplet(**changes: object) -> TripletLoss:
    options = {"partners": 8, "error": "mse", "smallest_difference": 1e-3}
    return TripletLoss(**(options | changes))  # type: ignore[arg-type]


def test_angles_of_known_features() -> None:
    teacher = torch.eye(3)  # r_01 and r_02 form an equilateral triangle's angle
    student = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, -1, 0]])  # a right angle
    step = step_of(star(1.0, 2.0), features=[student, teacher])
    assert triplet()(step).item() == pytest.approx(0.25)
    assert triplet(error="smooth_l1")(step).item() == pytest.approx(0.125)
    opposite = step_of(star(1.0, 2.0), features=[teacher, teacher])
    assert triplet()(opposite).item() == 0


@pytest.mark.parametrize(
    ("partners", "expected"),
    [(1, [1, 2, 3, 4]), (2, [1, 2, 3, 4, 1.5, 2.5, 3.5]), (99, None)],
)
def test_partners_are_the_next_in_distance(
    partners: int, expected: list[float] | None
) -> None:
    graph = star(3.0, 1.0, 2.0, 5.0, 4.0)
    # the angle between the first two in rank is told apart by their features
    places = graph.positions[:, :1]
    features = torch.cat([torch.cos(places / 9), torch.sin(places / 9)], dim=1)
    ranked = ranked_neighbors(graph)
    assert ranked.neighbors[0].tolist() == [2, 3, 1, 5, 4]
    cosine, exists = relation_angles(
        features, ranked, partners=partners, smallest_difference=1e-6
    )
    found = cosine[0][exists[0]]
    assert exists[1:].sum() == 0
    if expected is None:
        assert len(found) == 10
        return
    # chords of a circle from the point at 0 to those at a and b: angle |a − b|/2
    pairs = {1: 1, 2: 1, 3: 1, 4: 1, 1.5: 2, 2.5: 2, 3.5: 2}
    assert found.tolist() == pytest.approx(
        [math.cos(pairs[middle] / 2 / 9) for middle in expected], abs=1e-5
    )


def test_of_equal_distances_the_lighter_element_comes_first() -> None:
    graph = star(2.0, 2.0, 1.0, 2.0)
    numbers = torch.tensor([1, 78, 8, 47, 29])
    ranked = ranked_neighbors(graph._replace(atomic_numbers=numbers))
    assert numbers[ranked.neighbors[0]].tolist() == [47, 8, 29, 78]


def test_images_and_the_atom_itself_are_no_partners() -> None:
    graph = build_graph(bulk("Cu", cubic=True), RULE)
    ranked = ranked_neighbors(graph)
    rows = [row[mask].tolist() for row, mask in zip(*ranked, strict=True)]
    assert [sorted(row) for row in rows] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert triplet()(step_of(build_graph(bulk("Cu"), RULE))).item() == 0


def structures() -> list[ase.Atoms]:
    crystal = bulk("Cu", cubic=True) * (2, 1, 1)
    crystal.rattle(0.1, seed=2)
    return [crystal, water(), oxygen_slab()]


@pytest.mark.parametrize("partners", [1, 3, 99])
def test_numbering_and_rotation_change_nothing(partners: int) -> None:
    given = structures()
    graph = batch_graphs([build_graph(one, RULE) for one in given])
    step = step_of(graph, seed=1)
    parts: list[tuple[ase.Atoms, Tensor]] = []
    start = 0
    for one in given:
        order = torch.randperm(len(one))
        moved = one[order.tolist()]
        moved.rotate(40, (1, 2, 3), rotate_cell=True)
        parts.append((moved, start + order))
        start += len(one)
    parts.reverse()
    order = torch.cat([part[1] for part in parts])
    features = step.features[0]
    turn, _ = torch.linalg.qr(torch.randn(5, 5))
    other = step_of(
        batch_graphs([build_graph(part[0], RULE) for part in parts]),
        features=[features.student[order] @ turn, features.teacher[order]],
    )
    term = triplet(partners=partners)
    assert term(step).item() > 0.05
    assert term(other).item() == pytest.approx(term(step).item(), rel=1e-4)


def test_one_atom_gives_zero_and_a_gradient() -> None:
    step = step_of(random_graph([1, 2]), seed=4, requires_grad=True)
    loss = triplet()(step)
    loss.backward()
    assert loss.item() == 0.0
    gradient = step.features[0].student.grad
    assert gradient is not None
    assert gradient.abs().sum() == 0


def test_equal_atoms_stay_out() -> None:
    teacher = torch.randn(4, 3)
    teacher[1] = teacher[0]
    student = torch.randn(4, 3)
    student[2] = student[0]
    student.requires_grad_()
    loss = triplet()(step_of(star(1.0, 2.0, 3.0), features=[student, teacher]))
    loss.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad[1].abs().sum() == 0  # its angles do not exist
    assert 0 < student.grad[2].abs().max() < 1e4


def test_memory_of_ten_thousand_pairs_does_not_grow_with_partners() -> None:
    n_atoms, n_slots, channels = 1000, 20, 32
    graph = random_graph([n_atoms], n_slots=n_slots)
    sizes: list[int] = []

    class Watcher(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel())
            return result

    features = torch.randn(2, n_atoms, channels).unbind()
    step = step_of(graph, features=features, requires_grad=True)
    with Watcher():
        triplet(partners=n_slots)(step).backward()
    assert max(sizes) == n_atoms * n_slots * channels
