import numpy as np
import pytest

from crack_md.errors import ConfigError
from crack_md.workflows.orr import (
    Volcano,
    complete_free_energies,
    limiting_potential,
    limiting_potentials,
    orr_diagram,
    reduction_steps,
)

GRID = np.linspace(-2.0, 5.0, 141)


def test_apex_of_man_2011() -> None:
    assert Volcano.named("O", "man-2011").apex == pytest.approx((1.72, 0.86))
    assert Volcano.named("OH", "man-2011").apex == pytest.approx((0.86, 0.86))
    assert Volcano.named("OOH", "man-2011").apex == pytest.approx((4.06, 0.86))


def test_agrees_with_one_surface_at_a_time() -> None:
    volcano = Volcano.named("O", "man-2011")
    single = [limiting_potential(value) for value in GRID]
    assert volcano.potential(GRID) == pytest.approx(single, abs=1e-12)
    steps = orr_diagram({"O": 1.3}).steps
    expected = [steps.step_1, steps.step_2, steps.step_3, steps.step_4]
    found = reduction_steps({"O": np.array(1.3)}, "man-2011")
    assert found == pytest.approx(expected, abs=1e-12)


def test_what_is_known_is_not_inferred() -> None:
    """ΔG_OH 0.9 gives OOH* 4.1 by scaling; a known O* of 1.5 stands."""
    known = {"O": np.array([1.5]), "OH": np.array([0.9])}
    assert complete_free_energies(known, "man-2011") == pytest.approx(
        np.array([[4.1, 1.5, 0.9]])
    )
    steps = reduction_steps(known, "man-2011")
    assert steps == pytest.approx(np.array([[-0.82, -2.6, -0.6, -0.9]]))
    assert limiting_potentials(known, "man-2011") == pytest.approx([0.6])
    alone = complete_free_energies({"OOH": np.array(4.1)}, "man-2011")
    assert alone == pytest.approx([4.1, 1.8, 0.9])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.0, 1.4, (0.5, 0.7)),  # left of the apex: U = ΔG/2
        (2.0, 2.4, (0.52, 0.72)),  # right of it: U = 1.72 - ΔG/2
        (1.5, 1.9, (0.75, 0.86)),  # across: the apex is the best there is
        (1.72, 1.72, (0.86, 0.86)),
    ],
)
def test_range_over_an_interval(
    low: float, high: float, expected: tuple[float, float]
) -> None:
    found = Volcano.named("O", "man-2011").potential_range(
        np.array([low]), np.array([high])
    )
    assert np.ravel(found) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("adsorbate", ["O", "OH", "OOH"])
def test_range_is_that_of_a_fine_grid(adsorbate: str) -> None:
    volcano = Volcano.named(adsorbate, "man-2011")
    low = np.linspace(-3.0, 5.5, 60)
    high = low + np.linspace(0.0, 2.5, 60)
    least, most = volcano.potential_range(low, high)
    grid = volcano.potential(np.linspace(low, high, 4001))
    assert least == pytest.approx(grid.min(axis=0), abs=1e-12)
    assert most == pytest.approx(grid.max(axis=0), abs=1e-3)
    assert np.all(most >= grid.max(axis=0) - 1e-12)


def test_says_what_it_does_not_know() -> None:
    with pytest.raises(ConfigError, match="'CO' is no intermediate"):
        Volcano.named("CO", "man-2011")
    with pytest.raises(ConfigError, match="unknown scaling 'x'"):
        Volcano.named("O", "x")
