import numpy as np
import pytest

from crack_md.workflows.ranking.errors import (
    AssumedErrors,
    ErrorPart,
    Estimates,
    committee_spread,
    percent,
    student_quantile,
)


def test_quantiles_are_those_of_the_tables() -> None:
    assert student_quantile(0.95, np.inf) == pytest.approx(1.959963984540054)
    assert student_quantile(0.95, 1.0) == pytest.approx(12.706204736432095)
    assert student_quantile(0.90, 4.0) == pytest.approx(2.131846786326649)
    assert student_quantile(0.50, 1.0) == pytest.approx(1.0)  # Cauchy: tan(π/4)


def test_shared_and_independent_parts_add_as_squares() -> None:
    found = AssumedErrors(shared_eV=0.3, independent_eV=0.4).apply(
        Estimates(np.array([1.0, 2.0]))
    )
    assert found.scale == pytest.approx([0.5, 0.5])
    low, high = found.interval(0.95)
    assert high - low == pytest.approx(2 * 1.959963984540054 * 0.5)


def test_a_committee_widens_what_is_assumed() -> None:
    assumed = AssumedErrors(shared_eV=0.0, independent_eV=0.12)
    found = assumed.apply(Estimates(np.array([1.0, 2.0])), np.array([0.05, 0.16]))
    assert found.scale == pytest.approx([0.13, 0.2])


def test_spread_of_a_committee() -> None:
    energies = np.array([[1.0, 2.0], [1.2, 2.0], [1.4, 2.0]])
    assert committee_spread(energies) == pytest.approx([0.2, 0.01])  # with a floor


@pytest.mark.parametrize("freedom", [np.inf, 3.0])
def test_draws_have_the_quantiles_and_correlation_they_should(freedom: float) -> None:
    part = ErrorPart(np.array([[0.3], [0.3]]), np.array([0.1, 0.4]), freedom)
    estimates = Estimates(np.array([1.0, -2.0]), (part,))
    draws = estimates.sample(200_000, seed=1)
    for level in (0.5, 0.9):
        low, high = estimates.interval(level)
        inside = ((draws > low) & (draws < high)).mean(axis=0)
        assert inside == pytest.approx([level, level], abs=0.005)
    if np.isinf(freedom):
        expected = 0.09 / np.sqrt((0.09 + 0.01) * (0.09 + 0.16))
        assert np.corrcoef(draws.T)[0, 1] == pytest.approx(expected, abs=0.01)


def test_known_energies_stand_still() -> None:
    assumed = AssumedErrors().apply(Estimates(np.array([1.0, 2.0])))
    found = assumed.with_known({1: 2.5})
    draws = found.sample(50, seed=0)
    assert np.all(draws[:, 1] == 2.5)
    assert draws[:, 0].std() > 0.05
    assert assumed.center_eV[1] == 2.0  # a copy


def test_same_seed_same_draws() -> None:
    found = AssumedErrors().apply(Estimates(np.array([1.0])))
    assert np.array_equal(found.sample(9, seed=4), found.sample(9, seed=4))
    assert not np.array_equal(found.sample(9, seed=4), found.sample(9, seed=5))


def test_degrees_of_freedom_of_several_parts() -> None:
    """Welch and Satterthwaite: (0.3² + 0.4²)² / (0.3⁴/2 + 0.4⁴/8) = 8.63."""
    none = np.zeros((1, 0))
    parts = (
        ErrorPart(none, np.array([0.3]), 2.0),
        ErrorPart(none, np.array([0.4]), 8.0),
    )
    found = Estimates(np.array([0.0]), parts)
    assert found.degrees_of_freedom == pytest.approx(0.0625 / 0.00725)
    assert found.scale == pytest.approx(0.5)
    # the far larger part decides, and nothing at all is certain
    far = (ErrorPart(none, np.array([1e-3]), 2.0), ErrorPart(none, np.array([0.4])))
    _, high = Estimates(np.array([0.0]), far).interval(0.95)
    assert high == pytest.approx(0.4 * 1.959963984540054, rel=1e-4)
    assert Estimates(np.array([1.0])).interval() == (1.0, 1.0)


def test_a_factor_may_be_negative() -> None:
    part = ErrorPart(np.array([[0.3]]), np.array([0.4])).times(-2.0)
    assert part.shared_eV == pytest.approx(-0.6)
    assert part.scale == pytest.approx(1.0)


def test_probabilities_as_people_write_them() -> None:
    assert [percent(p) for p in (0.9, 0.95, 0.999)] == ["90%", "95%", "99.9%"]
