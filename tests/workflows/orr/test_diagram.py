import numpy as np
import pytest

from crack_md.errors import ConfigError
from crack_md.workflows.orr import (
    CORRECTIONS,
    SCALINGS,
    WATER_FORMATION_EV,
    FreeEnergyDiagram,
    free_energy,
    limiting_potential,
    limiting_potential_band,
    orr_diagram,
)


def test_apex_of_the_volcano() -> None:
    assert limiting_potential(1.72) == pytest.approx(0.86, abs=1e-12)
    assert orr_diagram({"O": 1.72}).steps.overpotential == pytest.approx(
        0.37, abs=1e-12
    )
    assert limiting_potential(1.71) < 0.86
    assert limiting_potential(1.73) < 0.86


@pytest.mark.parametrize("dG_O", np.linspace(-1.0, 4.0, 11))
def test_closed_form(dG_O: float) -> None:
    expected = min(1.72 - dG_O / 2, dG_O / 2)
    assert limiting_potential(dG_O) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dG_O", np.linspace(-1.0, 4.0, 11))
def test_closed_form_of_the_line_through_platinum(dG_O: float) -> None:
    """With OH = O/2 - 0.1 and OOH = OH + 3.16, steps 1 and 4 or 3 limit."""
    dG_OH = dG_O / 2 - 0.1
    expected = -max(dG_OH + 3.16 - 4.92, dG_O - dG_OH - 3.16, dG_OH - dG_O, -dG_OH)
    found = limiting_potential(dG_O, scaling="hansen-2014")
    assert found == pytest.approx(expected, abs=1e-12)


def test_hansen_scaling_passes_through_its_platinum() -> None:
    platinum = orr_diagram({"OH": 0.75}, scaling="hansen-2014")
    assert platinum.dG_O_eV == pytest.approx(1.70, abs=1e-12)
    assert platinum.dG_OOH_eV == pytest.approx(3.91, abs=1e-12)
    assert platinum.limiting_potential == pytest.approx(0.75, abs=1e-12)
    assert platinum.steps.limiting_step == 4


def test_steps_add_up_to_four_electrons() -> None:
    steps = orr_diagram({"O": 1.3}).steps
    assert sum(steps.all) == pytest.approx(-4.92, abs=1e-12)


def test_constants_by_hand() -> None:
    """ZPE - TS: H2O 0.56 - 0.67, H2 0.27 - 0.41; ½O2 0.05 - 0.32 eV."""
    constants = CORRECTIONS["norskov-2004"].free_minus_electronic
    assert constants["O"] == pytest.approx(0.07 - (-0.11 + 0.14), abs=1e-9)
    assert constants["O"] == pytest.approx(0.04, abs=1e-9)
    assert constants["OH"] == pytest.approx(0.30 - (-0.11 + 0.07), abs=1e-9)
    assert constants["OH"] == pytest.approx(0.34, abs=1e-9)
    assert constants["OOH"] == pytest.approx(0.40 - (-0.22 + 0.21), abs=1e-9)
    assert constants["OOH"] == pytest.approx(0.41, abs=1e-9)
    assert pytest.approx(-2.46 - 0.24 - 0.06, abs=1e-9) == WATER_FORMATION_EV


def test_formation_of_water_closes_the_cycle() -> None:
    """2 (H2 + ½O2 → H2O) must release 4.92 eV: ΔE + ΔZPE - TΔS."""
    correction = (0.56 - 0.67) - (0.27 - 0.41) - (0.05 - 0.32)
    assert 2 * (WATER_FORMATION_EV + correction) == pytest.approx(-4.92, abs=1e-9)


def test_computed_intermediates_are_not_inferred() -> None:
    diagram = orr_diagram({"O": 1.6, "OH": 0.7, "OOH": 3.8})
    assert diagram == FreeEnergyDiagram(3.8, 1.6, 0.7, ())
    assert diagram.steps.all == pytest.approx((-1.12, -2.2, -0.9, -0.7))
    assert diagram.limiting_potential == pytest.approx(0.7)
    assert diagram.overpotential == pytest.approx(0.53)


@pytest.mark.parametrize(
    ("known", "inferred"),
    [
        ({"O": 1.6}, ("OOH", "OH")),
        ({"OH": 0.8}, ("OOH", "O")),
        ({"OOH": 4.0}, ("O", "OH")),
        ({"O": 1.6, "OH": 0.8}, ("OOH",)),
        ({"O": 1.6, "OOH": 4.0}, ("OH",)),
    ],
)
def test_missing_intermediates_lie_on_the_line(
    known: dict[str, float], inferred: tuple[str, ...]
) -> None:
    """All these are points of one line, so all diagrams agree."""
    diagram = orr_diagram(known)
    assert diagram.inferred == inferred
    assert diagram.dG_O_eV == pytest.approx(1.6)
    assert diagram.dG_OH_eV == pytest.approx(0.8)
    assert diagram.dG_OOH_eV == pytest.approx(4.0)


def test_levels_move_with_the_electrons_that_are_left() -> None:
    diagram = orr_diagram({"O": 1.6, "OH": 0.7, "OOH": 3.8})
    assert diagram.levels() == (4.92, 3.8, 1.6, 0.7, 0.0)
    at_equilibrium = diagram.levels(1.23)
    assert at_equilibrium == pytest.approx((0.0, 0.11, -0.86, -0.53, 0.0), abs=1e-12)
    limit = diagram.levels(diagram.limiting_potential)
    rises = np.diff(limit)
    assert rises.max() == pytest.approx(0.0, abs=1e-12)


def test_diagram_of_nothing() -> None:
    with pytest.raises(ConfigError, match="at least one of O, OH and OOH"):
        orr_diagram({"CO": 1.0})


def test_band_over_all_sets_by_hand() -> None:
    """ΔE_O = 1.62: OH is (1.66 | 1.67)/2, minus 0.1 for the line through Pt."""
    low, high = limiting_potential_band({"O": 1.62})
    assert low == pytest.approx(1.66 / 2 - 0.1, abs=1e-9)
    assert high == pytest.approx(1.67 / 2, abs=1e-9)
    assert len(CORRECTIONS) * len(SCALINGS) == 4


def test_computed_intermediates_keep_a_band() -> None:
    """Lowest: OH* from OOH* alone, 3.4 + 0.4 - 3.2; highest: OH* from O* alone."""
    low, high = limiting_potential_band({"O": 1.6, "OH": 0.4, "OOH": 3.4})
    assert (low, high) == pytest.approx((0.60, 1.65 / 2), abs=1e-9)


def test_band_where_the_step_has_no_constants_left() -> None:
    """O* to OH*: both sets raise both by as much, and the band was 0 V wide."""
    low, high = limiting_potential_band({"O": 1.6, "OH": 1.0, "OOH": 4.0})
    assert low == pytest.approx(0.30, abs=1e-9)
    assert high > 0.8


@pytest.mark.parametrize(
    ("metal", "dE_O", "expected"),
    [("Pt", 1.62, 0.83), ("Pd", 1.55, 0.80), ("Au", 2.61, 0.40), ("Ru", -0.07, -0.02)],
)
def test_metals_of_the_literature(metal: str, dE_O: float, expected: float) -> None:
    """ΔE_O against H2O and H2 on close-packed metals (Falsig et al. 2012)."""
    dG_O = free_energy(dE_O, "O")
    assert dG_O is not None
    assert limiting_potential(dG_O) == pytest.approx(expected, abs=0.0051), metal


def test_adsorbate_without_corrections() -> None:
    assert free_energy(1.0, "CO") is None
