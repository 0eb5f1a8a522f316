"""Which frames a step takes, and who takes which part of them."""

import pytest
import torch

from crack_md.errors import ConfigError
from crack_md.training.data.feed import (
    FixedAtoms,
    FixedNumber,
    balanced_parts,
    seed_step,
)

SIZES = torch.tensor([4, 8, 4, 16, 12, 4, 4, 8, 16, 4])  # 80 atoms


def sizes_like_slabs(n_frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(12, 90, (n_frames,), generator=generator)


def test_draws_that_past_runs_have_made() -> None:
    assert FixedNumber(10, 4, seed=1)(0).tolist() == [4, 1, 8, 6]
    assert FixedNumber(10, 4, seed=1)(2).tolist() == [2, 0, 3, 1]  # a pass ends


def test_every_pass_draws_every_frame_once() -> None:
    draw = FixedNumber(10, 4, seed=1)
    order = torch.cat([draw(step) for step in range(5)])
    assert sorted(order[:10].tolist()) == list(range(10))
    assert sorted(order[10:].tolist()) == list(range(10))
    assert not torch.equal(order[:10], order[10:])


def test_draws_depend_on_seed_and_step_alone() -> None:
    first = FixedNumber(100, 8, seed=3)(7)
    FixedNumber(100, 8, seed=5)(2)
    assert torch.equal(first, FixedNumber(100, 8, seed=3)(7))
    assert not torch.equal(first, FixedNumber(100, 8, seed=4)(7))


def test_more_frames_in_a_batch_than_in_the_set() -> None:
    drawn = FixedNumber(3, 7, seed=0)(0)
    assert drawn.bincount().tolist() in ([2, 2, 3], [2, 3, 2], [3, 2, 2])


def test_batches_of_equal_atoms_cut_every_pass_whole() -> None:
    draw = FixedAtoms(SIZES, 20, seed=0)  # 80 atoms: four batches in a pass
    for number in range(3):
        batches = [draw(4 * number + batch) for batch in range(4)]
        assert sorted(torch.cat(batches).tolist()) == list(range(10))
    assert not torch.equal(draw(0), draw(4))
    assert torch.equal(draw(5), FixedAtoms(SIZES, 20, seed=0)(5))


def test_frames_of_one_size_make_equal_batches() -> None:
    draw = FixedAtoms(torch.full((12,), 5), 15, seed=0)
    assert [len(draw(step)) for step in range(8)] == [3] * 8


def test_batches_miss_their_atoms_by_a_frame_at_most() -> None:
    sizes = sizes_like_slabs(500)
    draw = FixedAtoms(sizes, 400, seed=0)
    n_batches = int(sizes.sum()) // 400
    mean = float(sizes.sum()) / n_batches
    for step in range(2 * n_batches):
        assert abs(int(sizes[draw(step)].sum()) - mean) <= int(sizes.max())


@pytest.mark.parametrize("n_parts", [1, 3])
def test_a_part_without_structures_is_refused(n_parts: int) -> None:
    sizes = SIZES.repeat(6)  # 480 atoms, at most 16 in a frame
    with pytest.raises(ConfigError, match=f"give at least {n_parts * 16}"):
        FixedAtoms(sizes, n_parts * 16 - 8, seed=0, n_parts=n_parts)
    draw = FixedAtoms(sizes, n_parts * 16, seed=0, n_parts=n_parts)
    for step in range(60):
        assert len(draw(step)) >= n_parts


def test_parts_are_balanced_by_the_largest_first() -> None:
    frames = torch.tensor([10, 11, 12, 13, 14])
    parts = balanced_parts(frames, torch.tensor([3, 9, 5, 4, 3]), 2)
    # 9 | 5, then 4 to 5, a tie at 9 | 9, then 3 and 3
    assert [part.tolist() for part in parts] == [[10, 11], [12, 13, 14]]


def test_one_part_is_the_batch_as_drawn() -> None:
    frames = torch.tensor([3, 1, 2])
    assert balanced_parts(frames, torch.tensor([1, 2, 3]), 1) == [frames]


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_processes_get_about_the_same_number_of_atoms(n_ranks: int) -> None:
    sizes = sizes_like_slabs(500)
    draw = FixedAtoms(sizes, 1600, seed=0, n_parts=n_ranks)
    spreads = []
    for step in range(10):
        drawn = draw(step)
        parts = balanced_parts(drawn, sizes[drawn], n_ranks)
        assert sorted(torch.cat(parts).tolist()) == sorted(drawn.tolist())
        atoms = torch.stack([sizes[part].sum() for part in parts]).double()
        spreads.append(float((atoms.max() - atoms.min()) / atoms.mean()))
    assert max(spreads) < 0.05
    # shared out in turn, as one draws them, the spread is several times larger
    in_turn = [
        torch.stack([sizes[draw(step)[rank::n_ranks]].sum() for rank in range(n_ranks)])
        for step in range(10)
    ]
    assert max(float((a.max() - a.min()) / a.double().mean()) for a in in_turn) > 0.15


def test_random_numbers_belong_to_a_step() -> None:
    device = torch.device("cpu")
    drawn = []
    for step in (1, 2, 1):
        seed_step(7, step, device)
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
