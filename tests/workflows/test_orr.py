import numpy as np
import pytest

from crack_md.workflows.orr import (
    free_energy,
    limiting_potential,
    steps_from_oxygen,
)


def test_apex_of_the_volcano() -> None:
    assert limiting_potential(1.72) == pytest.approx(0.86, abs=1e-12)
    assert steps_from_oxygen(1.72).overpotential == pytest.approx(0.37, abs=1e-12)
    assert limiting_potential(1.71) < 0.86
    assert limiting_potential(1.73) < 0.86


@pytest.mark.parametrize("dG_O", np.linspace(-1.0, 4.0, 11))
def test_closed_form(dG_O: float) -> None:
    expected = min(1.72 - dG_O / 2, dG_O / 2)
    assert limiting_potential(dG_O) == pytest.approx(expected, abs=1e-12)


def test_steps_add_up_to_four_electrons() -> None:
    steps = steps_from_oxygen(1.3)
    total = steps.step_1 + steps.step_2 + steps.step_3 + steps.step_4
    assert total == pytest.approx(-4.92, abs=1e-12)


@pytest.mark.parametrize(
    ("metal", "dE_O", "expected"),
    [("Pt", 1.62, 0.83), ("Pd", 1.55, 0.80), ("Au", 2.61, 0.40), ("Ru", -0.07, -0.02)],
)
def test_metals_of_the_literature(metal: str, dE_O: float, expected: float) -> None:
    """ΔE_O against H2O and H2 on close-packed metals (Falsig et al. 2012)."""
    potential = limiting_potential(free_energy(dE_O, "O"))
    assert potential == pytest.approx(expected, abs=0.0051), metal
