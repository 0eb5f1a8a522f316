"""InfoNCE on rows whose loss is known, in blocks of any size."""

import itertools
import math

import pytest
import torch

from crack_md.training.losses import infonce as infonce_module
from crack_md.training.losses.blocks import alike_blocks, blocks_of, log_sum_exp
from crack_md.training.losses.infonce import Rows, Sample, draw_from_blocks, infonce

N_ROWS = 7


def loss_of(rows: Rows, **changes: object) -> torch.Tensor:
    options = {
        "temperature": 0.15,
        "anchor": "teacher",
        "both_signs": False,
        "chunk": 3,
    }
    return infonce(rows, **(options | changes))


def agreeing(matrix: torch.Tensor) -> Rows:
    """Return one block in which teacher and student agree."""
    return Rows.of(matrix, matrix, torch.zeros(len(matrix), dtype=torch.long))


@pytest.mark.parametrize("anchor", ["teacher", "student", "both"])
def test_identical_rows_give_the_log_of_their_number(anchor: str) -> None:
    loss = loss_of(agreeing(torch.eye(4)[:1].expand(N_ROWS, -1)), anchor=anchor)
    assert torch.allclose(loss, torch.full_like(loss, math.log(N_ROWS)), atol=1e-6)


def test_orthogonal_rows_have_a_closed_form() -> None:
    loss = loss_of(agreeing(torch.eye(N_ROWS)), temperature=0.5)
    # the row itself scores 1/τ = 2, the others 0
    expected = math.log(math.exp(2) + N_ROWS - 1) - 2
    assert torch.allclose(loss, torch.full_like(loss, expected), atol=1e-6)


def test_orthogonal_rows_with_both_signs() -> None:
    loss = loss_of(agreeing(torch.eye(N_ROWS)), temperature=0.5, both_signs=True)
    expected = math.log(math.exp(2) + math.exp(-2) + 2 * (N_ROWS - 1)) - 2
    assert torch.allclose(loss, torch.full_like(loss, expected), atol=1e-6)


@pytest.mark.parametrize("both_signs", [False, True])
def test_agreeing_rows_cost_nothing_at_zero_temperature(both_signs: bool) -> None:
    loss = loss_of(agreeing(torch.eye(N_ROWS)), temperature=1e-3, both_signs=both_signs)
    assert loss.abs().max() < 1e-6


def test_anchor_chooses_whose_sum_it_is() -> None:
    teacher, student = torch.eye(2), torch.tensor([[1.0, 0], [1, 0]])
    rows = Rows.of(teacher, student, torch.zeros(2, dtype=torch.long))
    of_teacher, of_student, both = (
        loss_of(rows, temperature=1.0, anchor=anchor)
        for anchor in ("teacher", "student", "both")
    )
    log_sum = math.log(math.e + 1)
    assert of_teacher.tolist() == pytest.approx([math.log(2), math.log(2)])
    assert of_student.tolist() == pytest.approx([log_sum - 1, log_sum])
    assert torch.allclose(both, (of_teacher + of_student) / 2)


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("both_signs", [False, True])
def test_chunked_log_sum_exp_equals_the_dense_one(chunk: int, both_signs: bool) -> None:
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


def test_blocks_undo_themselves() -> None:
    blocks = blocks_of(torch.tensor([2, 0, 2, 0, 2]), 4)
    values = torch.arange(5.0)
    assert blocks.valid.tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0]]
    padded = blocks.pad(values[:, None]).squeeze(2)
    assert padded[0].tolist() == [1, 3, 0]
    assert torch.equal(blocks.unpad(padded), values)


def test_blocks_share_a_table_with_those_of_their_size() -> None:
    sizes = torch.tensor([100, 3, 1, 4, 90, 0])
    block = torch.repeat_interleave(torch.arange(6), sizes)[torch.randperm(198)]
    shapes = [
        tuple(part.candidate_layout.valid.shape)
        for part in alike_blocks(block, block, most_rows=999)
    ]
    assert sorted(shapes) == [(1, 1), (2, 4), (2, 100)]
    rows = torch.cat([part.rows for part in alike_blocks(block, block, most_rows=999)])
    assert torch.equal(rows.sort().values, torch.arange(198))


def test_blocks_do_not_see_each_other() -> None:
    sizes = (1, 40, 5, 6)
    block = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    block = block[torch.randperm(len(block))]
    rows = Rows.of(torch.randn(52, 3), torch.randn(52, 3), block)
    whole = loss_of(rows)
    for number in range(4):
        chosen = block == number
        alone = Rows.of(*rows.take(chosen.nonzero().squeeze(1)), block[chosen] * 0)
        assert torch.allclose(whole[chosen], loss_of(alone), atol=1e-5)


@pytest.mark.parametrize("sample", [None, 3])
def test_large_batches_are_done_in_parts(
    monkeypatch: pytest.MonkeyPatch, sample: int | None
) -> None:
    block = torch.randint(8, (60,))
    drawn = Sample(draw_from_blocks(block, 3), torch.arange(60)) if sample else None
    teacher, given = torch.randn(2, 60, 4, dtype=torch.float64).unbind()
    weight = torch.randn(60, dtype=torch.float64)
    found = []
    for most in (1 << 22, 8 * 4):
        monkeypatch.setattr(infonce_module, "MOST_NUMBERS", most)
        student = given.clone().requires_grad_()
        loss = loss_of(Rows.of(teacher, student, block), sample=drawn)
        (loss * weight).sum().backward()
        assert student.grad is not None
        found.append((loss.detach(), student.grad))
    torch.testing.assert_close(found[0], found[1])


def test_excluded_candidates_stay_out_of_the_sum() -> None:
    anchors = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    others = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    excluded = torch.tensor([[2, -1, 4]])
    for both_signs in (False, True):
        options = {"temperature": 0.2, "both_signs": both_signs, "chunk": 2}
        valid = torch.ones(1, 5).bool()
        found = log_sum_exp(anchors, others, valid, excluded=excluded, **options)
        kept = [[0, 1, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3]]
        for row, columns in enumerate(kept):
            alone = log_sum_exp(
                anchors[:, row : row + 1],
                others[:, columns],
                valid[:, : len(columns)],
                **options,
            )
            assert torch.allclose(found[:, row], alone.squeeze(1))
            one, other = (
                torch.autograd.grad(value.sum(), others, retain_graph=True)[0]
                for value in (found[:, row], alone)
            )
            assert torch.allclose(one, other)


def random_rows(*sizes: int) -> Rows:
    block = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    teacher, student = torch.nn.functional.normalize(
        torch.randn(2, len(block), 3, dtype=torch.float64), dim=-1
    )
    return Rows.of(teacher, student, block)


def sampled(rows: Rows, chosen: list[int], **changes: object) -> torch.Tensor:
    sample = Sample(torch.tensor(chosen), torch.arange(len(rows.block)))
    return loss_of(rows, sample=sample, temperature=0.5, **changes)


@pytest.mark.parametrize("anchor", ["teacher", "student", "both"])
@pytest.mark.parametrize("both_signs", [False, True])
def test_a_sample_of_all_is_exact(anchor: str, both_signs: bool) -> None:
    rows = random_rows(5, 1, 3)
    options = {"anchor": anchor, "both_signs": both_signs}
    found = sampled(rows, torch.randperm(9).tolist(), **options)
    assert torch.allclose(found, loss_of(rows, temperature=0.5, **options))


@pytest.mark.parametrize("both_signs", [False, True])
def test_samples_are_right_on_average(both_signs: bool) -> None:
    rows = random_rows(6)
    exact = loss_of(rows, temperature=0.5, both_signs=both_signs)
    every = list(itertools.combinations(range(6), 3))
    losses = torch.stack([sampled(rows, c, both_signs=both_signs) for c in every])
    in_sample = torch.tensor([[k in c for k in range(6)] for c in every])
    # exp(loss) is the sum over all, in units of the positive: an estimate of it that is
    # right whether or not the row itself was drawn
    for chosen in (in_sample, ~in_sample):
        weight = chosen.double() / chosen.sum(dim=0)
        assert torch.allclose((losses.exp() * weight).sum(dim=0), exact.exp())
    assert (losses.mean(dim=0) < exact).all()


def test_renumbered_rows_and_sample_give_the_same() -> None:
    rows = random_rows(4, 5)
    order = torch.randperm(9)
    moved = Rows.of(*rows.take(order), rows.block[order])
    place = order.argsort()
    found = sampled(moved, place[torch.tensor([0, 2, 5, 7])].tolist())
    assert torch.allclose(found, sampled(rows, [0, 2, 5, 7])[order])


def test_drawing_is_even_and_per_block() -> None:
    block = torch.tensor([7, 2, 2, 7, 2, 2, 3])
    counts = torch.zeros(7)
    for _ in range(600):
        chosen = draw_from_blocks(block, 2)
        assert block[chosen].bincount().tolist() == [0, 0, 2, 1, 0, 0, 0, 2]
        counts[chosen] += 1
    assert counts[[0, 3, 6]].tolist() == [600, 600, 600]
    assert (counts[[1, 2, 4, 5]] - 300).abs().max() < 60


def test_drawing_moves_the_random_state_by_one_step() -> None:
    states = []
    for n in (3, 1000):
        torch.manual_seed(3)
        draw_from_blocks(torch.zeros(n, dtype=torch.long), 2)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_ten_thousand_rows_fit_into_chunks() -> None:
    n, chunk = 10_000, 256
    directions = torch.nn.functional.normalize(torch.randn(n, 8), dim=-1)
    student = directions.clone().requires_grad_()
    rows = Rows.of(directions, student, torch.zeros(n, dtype=torch.long))
    sizes: list[int] = []

    class Watcher(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel())
            return result

    with Watcher():
        loss_of(rows, both_signs=True, chunk=chunk).mean().backward()
    assert max(sizes) == chunk * n
    assert student.grad is not None
    assert student.grad.isfinite().all()
