import numpy as np
import pytest
from numpy import ndarray

from crack_md.errors import DataError
from crack_md.workflows.ranking.calibration import calibrate
from crack_md.workflows.ranking.errors import AssumedErrors, Estimates

T_95 = {1: 12.706204736432095, 2: 4.302652729696142, 3: 3.182446305284263}
"""Two-sided 95 % quantiles of Student's t, from tables."""


def scattered(n: int, *, seed: int = 0) -> tuple[ndarray, ndarray]:
    random = np.random.default_rng(seed)
    x = np.sort(random.uniform(0.5, 2.5, n))
    return x, 0.3 + 0.8 * x + random.normal(0.0, 0.1, n)


def test_known_line_is_found_and_leaves_the_least_error() -> None:
    x = np.array([0.5, 1.0, 1.4, 2.2, 2.6])
    found = calibrate(x, 0.25 + 0.9 * x)
    assert found.kind == "line"
    assert (found.offset, found.slope) == pytest.approx((0.25, 0.9), abs=1e-12)
    corrected = found.apply(Estimates(np.array([3.0, -1.0])))
    assert corrected.center_eV == pytest.approx([2.95, -0.65], abs=1e-12)
    assert found.residual == pytest.approx(0.0, abs=1e-12)
    assert corrected.scale == pytest.approx(0.01, abs=1e-12)  # eV, what remains
    assert found.left_out is not None
    assert (found.left_out.n_inside, found.n) == (5, 5)


def test_interval_of_an_offset_by_hand() -> None:
    """Differences 0.1, 0.2, 0.3: a = 0.2, s = 0.1, and s √(1 + 1/3) for a new one."""
    x = np.array([1.0, 1.5, 2.0])
    found = calibrate(x, x + np.array([0.1, 0.2, 0.3]))
    assert (found.kind, found.degrees_of_freedom) == ("offset", 2)
    low, high = found.apply(Estimates(np.array([5.0]))).interval(0.95)
    half = T_95[2] * 0.1 * np.sqrt(4 / 3)
    assert (low[0], high[0]) == pytest.approx((5.2 - half, 5.2 + half), abs=1e-9)


def test_interval_of_a_line_by_hand() -> None:
    """x̄ = 1.5, S = 5, slope 1, r = 0.1, -0.1, -0.1, 0.1: s² = 0.04/2."""
    x = np.array([0.0, 1.0, 2.0, 3.0])
    found = calibrate(x, x + 1.0 + np.array([0.1, -0.1, -0.1, 0.1]))
    assert found.slope == pytest.approx(1.0)
    low, high = found.apply(Estimates(np.array([4.0]))).interval(0.95)
    half = T_95[2] * np.sqrt(0.02) * np.sqrt(1 + 1 / 4 + 2.5**2 / 5)
    assert (low[0], high[0]) == pytest.approx((5.0 - half, 5.0 + half), abs=1e-9)


def test_two_values_are_worth_little() -> None:
    found = calibrate(np.array([1.0, 2.0]), np.array([1.1, 2.3]))
    scale = found.apply(Estimates(np.array([1.5]))).scale[0]
    low, high = found.apply(Estimates(np.array([1.5]))).interval(0.95)
    assert high[0] - low[0] == pytest.approx(2 * T_95[1] * scale)
    assert high[0] - low[0] > 4.0


def test_one_value_borrows_the_scatter() -> None:
    assumed = AssumedErrors(independent_eV=0.2)
    found = calibrate(np.array([1.0]), np.array([1.3]), assumed=assumed)
    corrected = found.apply(Estimates(np.array([2.0])))
    assert corrected.center_eV == pytest.approx([2.3])
    assert corrected.scale == pytest.approx([0.2 * np.sqrt(2)])
    low, _ = corrected.interval(0.95)
    assert low == pytest.approx([2.3 - 1.959963984540054 * 0.2 * np.sqrt(2)])
    assert found.left_out is None


def test_scale_of_a_committee_without_a_correction() -> None:
    """Errors of three and four times the spread: s = √((9 + 16)/2)."""
    x, spread = np.array([1.0, 2.0]), np.array([0.1, 0.05])
    found = calibrate(x, x + np.array([0.3, -0.2]), spread_eV=spread, kind="none")
    assert found.residual == pytest.approx(np.sqrt(12.5))
    assert found.degrees_of_freedom == 2
    wide = found.apply(Estimates(np.array([3.0])), np.array([0.2]))
    assert wide.center_eV == pytest.approx([3.0])
    assert wide.scale == pytest.approx([0.2 * np.sqrt(12.5)])


def test_equal_spreads_change_nothing() -> None:
    x, y = scattered(9)
    plain = calibrate(x, y).apply(Estimates(np.array([0.1, 3.0])))
    found = calibrate(x, y, spread_eV=np.full(9, 0.07))
    spread = found.apply(Estimates(np.array([0.1, 3.0])), np.full(2, 0.07))
    assert spread.center_eV == pytest.approx(plain.center_eV)
    assert spread.scale == pytest.approx(plain.scale)


@pytest.mark.parametrize("n", [2, 3, 4, 9])
@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_is_what_fitting_again_gives(n: int, weighted: bool) -> None:
    x, y = scattered(n)
    spread = np.linspace(0.05, 0.2, n) if weighted else None
    found = calibrate(x, y, spread_eV=spread)
    missed, inside = [], 0
    for i in range(n):
        rest = np.arange(n) != i
        others = calibrate(
            x[rest],
            y[rest],
            spread_eV=None if spread is None else spread[rest],
            kind=found.kind,
        )
        here = None if spread is None else spread[i : i + 1]
        predicted = others.apply(Estimates(x[i : i + 1]), here)
        missed.append(y[i] - predicted.center_eV[0])
        low, high = predicted.interval(0.95)
        inside += int(low[0] <= y[i] <= high[0])
    assert found.left_out is not None
    assert found.left_out.rmse_eV == pytest.approx(np.sqrt(np.mean(np.square(missed))))
    freedom = n - (2 if found.kind == "line" else 1)
    assert found.left_out.n_inside == (inside if freedom > 1 else None)


def test_intervals_cover_what_they_promise() -> None:
    """Of 2,000 predictions from five noisy values each, 90 % lie inside (± 2 %)."""
    inside = 0
    for seed in range(2000):
        x, y = scattered(6, seed=seed)
        found = calibrate(x[1:], y[1:]).apply(Estimates(x[:1]))
        low, high = found.interval(0.90)
        inside += int(low[0] <= y[0] <= high[0])
    assert inside / 2000 == pytest.approx(0.90, abs=0.02)


def test_a_line_needs_four_values_that_lie_apart() -> None:
    x = np.array([1.0, 1.02, 1.04, 1.06, 1.08])
    assert calibrate(x, x + 0.1).kind == "offset"
    assert calibrate(x[:3] * 2, x[:3]).kind == "offset"
    with pytest.raises(DataError, match=r"2 reference values do not make .* 'line'"):
        calibrate(x[:2], x[:2], kind="line")
    with pytest.raises(DataError, match="0 reference values"):
        calibrate(x[:0], x[:0])


def test_a_value_that_holds_the_line_alone_cannot_be_left_out() -> None:
    x = np.array([1.0, 1.0, 1.0, 2.0])
    assert calibrate(x, x + np.array([0.1, 0.2, 0.3, 0.0])).left_out is None
