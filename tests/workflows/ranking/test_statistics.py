import numpy as np
import pytest

from crack_md.workflows.ranking.errors import ErrorPart, Estimates, rank_statistics


def test_four_draws_by_hand() -> None:
    draws = np.array(
        [[3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0], [3.0, 2.0, 1.0]]
    )
    found = rank_statistics(draws, top=2, level=0.75)
    assert found.p_best == pytest.approx([0.75, 0.25, 0.0])
    assert found.p_top == pytest.approx([1.0, 0.75, 0.25])
    assert found.low.tolist() == [1, 1, 2]
    assert found.high.tolist() == [2, 3, 3]
    # slabs 0 and 1 are the best two in three draws of four
    assert found.shortlist == (0, 1)
    assert rank_statistics(draws, top=2, level=0.8).shortlist == (0, 1, 2)


def test_certain_order() -> None:
    draws = np.tile([1.0, 3.0, 2.0], (100, 1))
    found = rank_statistics(draws, top=1)
    assert found.p_best.tolist() == [0.0, 1.0, 0.0]
    assert found.low.tolist() == found.high.tolist() == [3, 1, 2]
    assert found.shortlist == (1,)


def test_two_slabs_follow_the_normal_distribution() -> None:
    """P(E1 > E2) = Φ(0.1 / √(0.1² + 0.1²)) = 0.7602; a shared error cancels."""
    for shared in (0.0, 5.0):
        part = ErrorPart(np.full((2, 1), shared), np.array([0.1, 0.1]))
        estimates = Estimates(np.array([1.1, 1.0]), (part,))
        found = rank_statistics(estimates.sample(100_000, seed=2), top=1)
        assert found.p_best == pytest.approx([0.7602, 0.2398], abs=0.005)


def test_probabilities_add_up() -> None:
    draws = np.random.default_rng(0).normal(size=(500, 30))
    found = rank_statistics(draws, top=7)
    assert found.p_best.sum() == pytest.approx(1.0)
    assert found.p_top.sum() == pytest.approx(7.0)
    assert np.all(found.low <= found.high)


def test_fewer_slabs_than_asked_for() -> None:
    found = rank_statistics(np.zeros((10, 2)), top=20)
    assert found.top == 2
    assert found.p_top.tolist() == [1.0, 1.0]
    assert len(found.shortlist) == 2
