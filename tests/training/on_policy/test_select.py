"""Which frames are chosen, on numbers made for it."""

from collections import Counter

import numpy as np
import pytest

from crack_md.training.on_policy.config import FrameSelection, Mixing
from crack_md.training.on_policy.labelling import choose_frames, farthest_move


def at(x: float) -> np.ndarray:
    """Return two atoms, the second of them at x."""
    return np.array([[0.0, 0.0, 0.0], [x, 0.0, 0.0]])


def settings(**changes: object) -> FrameSelection:
    options = {"budget": 3, "random_share": 0.0, "spacing_A": 0.1, "per_start": 9}
    return FrameSelection.model_validate(options | changes)


def chosen(disagreement, starts, xs, seed=0, **changes):
    return choose_frames(
        disagreement,
        starts,
        [at(x) for x in xs],
        settings(**changes),
        random=np.random.default_rng(seed),
    )


def test_the_least_sure_are_taken_first():
    found = chosen([0.1, 0.9, 0.5, 0.7], [0, 1, 2, 3], [0, 0, 0, 0])

    assert found == {1: "disagreement", 2: "disagreement", 3: "disagreement"}


def test_near_duplicates_of_a_start_are_passed_over():
    # 1 is 0.05 Å from 0, the best of start 7; 3 is as near, but of another start
    found = chosen([0.9, 0.8, 0.7, 0.6], [7, 7, 7, 8], [0.0, 0.05, 0.11, 0.05])

    assert list(found) == [0, 2, 3]


def test_no_more_than_so_many_of_one_start():
    found = chosen(
        [0.9, 0.8, 0.7, 0.1], [0, 0, 0, 1], [0.0, 1.0, 2.0, 0.0], per_start=2
    )

    assert list(found) == [0, 1, 3]


def test_ties_go_to_the_earlier_frame():
    assert list(chosen([0.5] * 4, [0, 1, 2, 3], [0] * 4, budget=2)) == [0, 1]


def test_the_control_is_a_fair_draw():
    counts: Counter[int] = Counter()
    for seed in range(2000):
        found = chosen(
            [9.0, 1.0, 1.0, 1.0], range(4), [0] * 4, seed=seed, budget=1, random_share=1
        )
        counts.update(found.keys())
        assert set(found.values()) == {"random"}

    # 500 each, standard deviation √(2000 · ¼ · ¾) = 19.4
    assert all(abs(counts[frame] - 500) < 80 for frame in range(4))


def test_budget_and_share_are_kept():
    found = chosen(
        np.linspace(0, 1, 50).tolist(), range(50), [0] * 50, budget=10, random_share=0.3
    )

    by = Counter(found.values())
    assert by == {"random": 3, "disagreement": 7}
    worst = [frame for frame, how in found.items() if how == "disagreement"]
    rest = [f for f in range(49, -1, -1) if found.get(f) != "random"][:7]
    assert sorted(rest) == worst


def test_few_frames_are_all_taken():
    assert chosen([0.1], [0], [0.0], budget=5, random_share=0.5) == {0: "random"}
    assert chosen([], [], []) == {}


def test_the_atom_that_moved_most_counts():
    assert farthest_move(at(0.0), at(0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("mixing", "repeats"),
    [
        (Mixing(repeats=4), 4),
        (Mixing(share=0.5), 10),  # 10 · 30 of 600
        (Mixing(share=0.25), 3),  # 3 · 30 = 90 of 390: 0.23; 4 would be 0.29
        (Mixing(share=0.01), 1),
    ],
)
def test_new_frames_get_their_share(mixing, repeats):
    assert mixing.repeats_of(300, 30) == repeats
