"""The relational loss: exact numbers first, then what must not change it."""

import math

import pytest
import torch

from crack_md.graph import AtomGraph
from crack_md.training.losses.crack import Relations, relational_infonce, relations
from crack_md.training.losses.infonce import log_sum_exp
from crack_md.training.losses.pairs import (
    AtomPairs,
    blocks_of,
    both_directions,
    unique_pairs,
)
from tests.training.factories import crack_term, random_graph, step_of

N_PAIRS = 7


def rows(matrix: torch.Tensor) -> Relations:
    """Return one block in which teacher and student agree."""
    return Relations(matrix[None], matrix[None], torch.ones(1, len(matrix)).bool())


def infonce(relation: Relations, **changes: object) -> torch.Tensor:
    options = {
        "temperature": 0.15,
        "anchor": "teacher",
        "both_signs": False,
        "chunk": 3,
    }
    return relational_infonce(relation, relation, **(options | changes))


@pytest.mark.parametrize("anchor", ["teacher", "student", "both"])
def test_identical_rows_give_the_log_of_their_number(anchor: str) -> None:
    same = rows(torch.eye(4)[:1].expand(N_PAIRS, -1))
    loss = infonce(same, anchor=anchor)
    assert torch.allclose(loss, torch.full_like(loss, math.log(N_PAIRS)), atol=1e-6)


def test_orthogonal_rows_have_a_closed_form() -> None:
    loss = infonce(rows(torch.eye(N_PAIRS)), temperature=0.5)
    # the row itself scores 1/τ = 2, the others 0
    expected = math.log(math.exp(2) + N_PAIRS - 1) - 2
    assert torch.allclose(loss, torch.full_like(loss, expected), atol=1e-6)


def test_orthogonal_rows_with_both_signs() -> None:
    loss = infonce(rows(torch.eye(N_PAIRS)), temperature=0.5, both_signs=True)
    expected = math.log(math.exp(2) + math.exp(-2) + 2 * (N_PAIRS - 1)) - 2
    assert torch.allclose(loss, torch.full_like(loss, expected), atol=1e-6)


def test_agreeing_rows_cost_nothing_at_zero_temperature() -> None:
    loss = infonce(rows(torch.eye(N_PAIRS)), temperature=1e-3)
    assert loss.abs().max() < 1e-6


def test_relation_is_a_unit_difference_of_unit_vectors() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    pair = AtomPairs(torch.tensor([0]), torch.tensor([1]))
    direction, length = relations(features, pair, smallest_difference=1e-3)
    half = math.sqrt(0.5)
    assert torch.allclose(direction, torch.tensor([[half, -half]]))
    assert length.item() == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("both_signs", [False, True])
def test_chunked_log_sum_exp_equals_the_dense_one(chunk: int, both_signs: bool) -> None:
    torch.manual_seed(0)
    anchors = torch.randn(2, 9, 5, dtype=torch.float64, requires_grad=True)
    others = torch.randn(2, 11, 5, dtype=torch.float64, requires_grad=True)
    valid = torch.rand(2, 11) < 0.7
    weight = torch.randn(2, 9, dtype=torch.float64)

    scores = anchors @ others.transpose(1, 2) / 0.3
    terms = torch.where(valid[:, None], scores, -torch.inf)
    if both_signs:
        negative = torch.where(valid[:, None], -scores, -torch.inf)
        terms = torch.cat([terms, negative], dim=-1)
    dense = terms.logsumexp(dim=-1)
    chunked = log_sum_exp(
        anchors, others, valid, temperature=0.3, both_signs=both_signs, chunk=chunk
    )

    assert torch.allclose(chunked, dense, rtol=1e-12)
    expected = torch.autograd.grad((dense * weight).sum(), (anchors, others))
    found = torch.autograd.grad((chunked * weight).sum(), (anchors, others))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


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


def test_blocks_undo_themselves() -> None:
    blocks = blocks_of(torch.tensor([0, 0, 2, 5, 5, 5]))
    values = torch.arange(6.0)
    assert blocks.valid.tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    assert torch.equal(blocks.unpad(blocks.pad(values[:, None]).squeeze(2)), values)


def test_both_directions_stay_with_their_structure() -> None:
    pairs = AtomPairs(torch.tensor([0, 2]), torch.tensor([1, 3]))
    directed = both_directions(pairs, torch.tensor([0, 0, 1, 1]))
    assert directed.first.tolist() == [0, 1, 2, 3]
    assert directed.second.tolist() == [1, 0, 3, 2]


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
        features=[part[order] for part in step.features],
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
        features = [part[atoms] for part in step.features]
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
    assert step.features.student.grad.abs().sum() == 0.0


def test_equivalent_teacher_atoms_are_left_out() -> None:
    step = step_of(random_graph([6]), seed=5, requires_grad=True)
    teacher = step.features.teacher.clone()
    teacher[1] = teacher[0] * (1 + 1e-6)
    step = step_of(step.graph, features=[step.features.student, teacher])
    loss = crack_term()(step)
    loss.backward()
    gradient = step.features.student.grad
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e2


def test_equal_student_atoms_keep_the_gradient_small() -> None:
    step = step_of(random_graph([6]), seed=6, requires_grad=True)
    student = step.features.student.detach().clone()
    student[1] = student[0]
    student.requires_grad_()
    crack_term()(
        step_of(step.graph, features=[student, step.features.teacher])
    ).backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 1e4  # the public formula reaches 1e9


def test_ten_thousand_pairs_fit_into_chunks() -> None:
    n, chunk = 10_000, 256
    torch.manual_seed(7)
    directions = torch.nn.functional.normalize(torch.randn(1, n, 8), dim=-1)
    student = directions.clone().requires_grad_()
    relation = Relations(directions, student, torch.ones(1, n).bool())
    sizes: list[int] = []

    class Watcher(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel())
            return result

    with Watcher():
        loss = infonce(relation, both_signs=True, chunk=chunk).mean()
    loss.backward()
    assert max(sizes) <= chunk * n
    assert student.grad.isfinite().all()
