"""Water at OH* and OOH*, what goes with which scaling, and what leaves U_L open."""

import pytest

from crack_md.errors import ConfigError
from crack_md.workflows.orr import (
    DEFAULT_SOLVATION,
    SCALINGS,
    SOLVATIONS,
    free_energy,
    has_water,
    limiting_potential_band,
    potential_errors,
    require_same_water,
    scalings_for,
)

WET = {"scaling": "hansen-2014", "solvation": "calle-vallejo-2015"}


def test_water_lowers_hydroxyl_and_peroxyl_only() -> None:
    """Corrections 0.34, 0.41, 0.04; water -0.575, -0.480, 0."""
    found = {n: free_energy(1.0, n, solvation=DEFAULT_SOLVATION) for n in SHIFTS}
    assert found == pytest.approx(SHIFTS)
    assert free_energy(1.0, "OH") == pytest.approx(1.34)
    assert free_energy(1.0, "OH", solvation="peterson-2010") == pytest.approx(0.84)
    assert free_energy(1.0, "CO", solvation=DEFAULT_SOLVATION) is None


SHIFTS = {"OH": 1.34 - 0.575, "OOH": 1.41 - 0.480, "O": 1.04}


def test_every_set_says_what_it_is() -> None:
    for solvation in SOLVATIONS.values():
        assert solvation.source
        assert set(solvation.stabilization) in ({"OH", "OOH"}, set())
        assert all(value < 0 for value in solvation.stabilization.values())
    assert {name: s.has_water for name, s in SCALINGS.items()} == {
        "man-2011": False,
        "hansen-2014": True,
    }


def test_oxygen_alone_goes_with_every_scaling() -> None:
    assert has_water(["O"], "calle-vallejo-2015") is None
    assert scalings_for(["O"], "calle-vallejo-2015") == ("man-2011", "hansen-2014")
    assert scalings_for(["O", "OH"], "calle-vallejo-2015") == ("hansen-2014",)
    assert scalings_for(["OOH"], "none") == ("man-2011",)


@pytest.mark.parametrize(
    ("scaling", "solvation", "message"),
    [
        ("hansen-2014", "none", "stabilized by water, and OH.* is without water"),
        (
            "man-2011",
            "peterson-2010",
            "take --scaling hansen-2014, or --solvation none",
        ),
    ],
)
def test_mixed_water_is_refused(scaling: str, solvation: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_same_water(["O", "OH"], scaling=scaling, solvation=solvation)
    require_same_water(["O"], scaling=scaling, solvation=solvation)


def test_causes_of_a_potential_that_hydroxyl_limits() -> None:
    """ΔG_OH 0.665 of 0.9 eV; 0.75 by other constants; OOH* limits nothing."""
    errors = potential_errors({"O": 1.6, "OH": 0.9}, error_eV=0.1, **WET)
    assert errors.constants_V == pytest.approx((0.9 + 0.35 - 0.5 - 0.665) / 2)
    assert errors.scaling_V == 0.0
    assert errors.model_V == pytest.approx(0.1)


def test_causes_of_a_potential_by_scaling_alone() -> None:
    """ΔG_O 1.66: OH* 0.83 or 0.73, OOH* 4.03 or 3.89, each ± 0.2 eV.

    U_L is lowest, 0.53 V, where OH* is 0.73 - 0.2, and highest at 0.83 V.
    """
    errors = potential_errors({"O": 1.62}, error_eV=0.1)
    assert errors.constants_V == pytest.approx(0.0025)
    assert errors.scaling_V == pytest.approx((0.83 - 0.53) / 2)
    assert errors.model_V == pytest.approx((0.84 - 0.78) / 2)


def test_everything_computed_leaves_the_model_alone() -> None:
    """Nothing is inferred, and O* to OH* has no constants left: still not zero."""
    errors = potential_errors({"O": 1.6, "OH": 1.0, "OOH": 4.0}, error_eV=0.05)
    assert errors.scaling_V == 0.0
    assert errors.constants_V == pytest.approx(0.0, abs=1e-9)
    assert errors.model_V == pytest.approx(0.1)


def test_band_with_water_spans_its_sets() -> None:
    """OH* 0.665 to 0.75 V as computed; 0.72 from O* by the line through Pt(111)."""
    low, high = limiting_potential_band(
        {"O": 1.6, "OH": 0.9}, solvation="peterson-2010"
    )
    assert low == pytest.approx(0.9 + 0.34 - 0.575)
    assert high == pytest.approx(0.9 + 0.35 - 0.50)
