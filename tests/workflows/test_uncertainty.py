import numpy as np
import pytest

from crack_md.workflows.uncertainty import (
    AssumedErrors,
    Estimates,
    committee_spread,
    student_quantile,
)


def test_quantiles_are_those_of_the_tables() -> None:
    assert student_quantile(0.95, np.inf) == pytest.approx(1.959963984540054)
    assert student_quantile(0.95, 1) == pytest.approx(12.706204736432095)
    assert student_quantile(0.90, 4) == pytest.approx(2.131846786326649)
    assert student_quantile(0.50, 1) == pytest.approx(1.0)  # Cauchy: tan(π/4)


def test_shared_and_independent_parts_add_as_squares() -> None:
    found = AssumedErrors(shared_eV=0.3, independent_eV=0.4).apply(
        Estimates.exact(np.array([1.0, 2.0]))
    )
    assert found.scale == pytest.approx([0.5, 0.5])
    low, high = found.interval(0.95)
    assert high - low == pytest.approx(2 * 1.959963984540054 * 0.5)


def test_a_committee_widens_what_is_assumed() -> None:
    assumed = AssumedErrors(shared_eV=0.0, independent_eV=0.12)
    found = assumed.apply(Estimates.exact(np.array([1.0, 2.0])), np.array([0.05, 0.16]))
    assert found.scale == pytest.approx([0.13, 0.2])


def test_spread_of_a_committee() -> None:
    energies = np.array([[1.0, 2.0], [1.2, 2.0], [1.4, 2.0]])
    assert committee_spread(energies) == pytest.approx([0.2, 0.01])  # with a floor


@pytest.mark.parametrize("freedom", [np.inf, 3.0])
def test_draws_have_the_quantiles_and_correlation_they_should(freedom: float) -> None:
    estimates = Estimates(
        np.array([1.0, -2.0]), np.array([[0.3], [0.3]]), np.array([0.1, 0.4]), freedom
    )
    draws = estimates.sample(200_000, seed=1)
    for level in (0.5, 0.9):
        low, high = estimates.interval(level)
        inside = ((draws > low) & (draws < high)).mean(axis=0)
        assert inside == pytest.approx([level, level], abs=0.005)
    if np.isinf(freedom):
        expected = 0.09 / np.sqrt((0.09 + 0.01) * (0.09 + 0.16))
        assert np.corrcoef(draws.T)[0, 1] == pytest.approx(expected, abs=0.01)


def test_known_energies_stand_still() -> None:
    assumed = AssumedErrors().apply(Estimates.exact(np.array([1.0, 2.0])))
    found = assumed.with_known({1: 2.5})
    draws = found.sample(50, seed=0)
    assert np.all(draws[:, 1] == 2.5)
    assert draws[:, 0].std() > 0.05
    assert assumed.center_eV[1] == 2.0  # a copy


def test_same_seed_same_draws() -> None:
    found = AssumedErrors().apply(Estimates.exact(np.array([1.0])))
    assert np.array_equal(found.sample(9, seed=4), found.sample(9, seed=4))
    assert not np.array_equal(found.sample(9, seed=4), found.sample(9, seed=5))
