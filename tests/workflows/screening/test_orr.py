"""All of oxygen reduction in one word, its water, and what settings refuse."""

from dataclasses import replace

import pytest

from crack_md.errors import ConfigError
from crack_md.models.limits import Limits
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.screening.plan import ScreenSettings
from crack_md.workflows.screening.reader import water_in_words
from crack_md.workflows.surfaces.adsorbates import parse_adsorbates

MODEL = ModelInfo("test", "0", "total", {"H2O": 0.0, "H2": 0.0})


def names(settings: ScreenSettings) -> list[str]:
    return [adsorbate.name for adsorbate in settings.adsorbates]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (None, ["O", "OH"]),
        (("O", "OH"), ["O", "OH"]),
        (("O", "OH", "OOH"), ["O", "OH", "OOH"]),
    ],
)
def test_peroxyl_is_computed_where_the_limits_hold_it(
    known: tuple[str, ...] | None, expected: list[str]
) -> None:
    limits = None if known is None else Limits(adsorbates=known)
    settings = ScreenSettings(adsorbates=parse_adsorbates("orr"))
    assert names(settings.for_model(replace(MODEL, limits=limits))) == expected


def test_peroxyl_that_is_asked_for_stays() -> None:
    settings = ScreenSettings(adsorbates=parse_adsorbates("CO:C,orr,OOH"))
    assert names(settings.for_model(MODEL)) == ["CO", "O", "OH", "OOH"]


def test_scaling_follows_the_water() -> None:
    both = ScreenSettings(adsorbates=parse_adsorbates("O,OH"))
    assert (both.scaling_set, both.solvation_set) == (
        "hansen-2014",
        "calle-vallejo-2015",
    )
    dry = replace(both, solvation="none")
    assert (dry.scaling_set, dry.solvation_set) == ("man-2011", "none")
    plain = ScreenSettings()
    assert (plain.scaling_set, plain.solvation_set) == ("man-2011", "none")
    for settings in (both, dry, plain, replace(plain, scaling="hansen-2014")):
        settings.check()
    with pytest.raises(ConfigError, match="take --scaling hansen-2014, or --solvation"):
        replace(both, scaling="man-2011").check()
    with pytest.raises(ConfigError, match="unknown solvation 'sea'"):
        replace(plain, solvation="sea").check()


def test_stability_needs_total_energies() -> None:
    settings = ScreenSettings(stability=True)
    settings.check_for(MODEL)
    with pytest.raises(ConfigError, match="stability needs total energies"):
        settings.check_for(replace(MODEL, energy_reference="adsorption"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "none (screened by an earlier version)"),
        (
            {"solvation": "none", "adsorbates": ["O"]},
            "none, for neither OH* nor OOH* is computed",
        ),
        ({"solvation": "none", "adsorbates": ["O", "OH"]}, "none around OH*"),
        (
            {"solvation": "x", "solvation_eV": {"OH": -0.5, "OOH": -0.25}},
            "x (OH* −0.500 eV, OOH* −0.250 eV)",
        ),
    ],
)
def test_water_in_words(settings: dict[str, object], words: str) -> None:
    assert water_in_words(settings) == words
