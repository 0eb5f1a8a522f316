"""Limits of a model act on a screening, and its label spread on the ranking."""

from dataclasses import replace
from pathlib import Path

import pytest
from ase.build import fcc111

from crack_md.models.limits import LabelSpread, Limits
from crack_md.structures import StructureEntry
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.ranking.errors import AssumedErrors, from_labels
from crack_md.workflows.ranking.rank import rank_slabs
from crack_md.workflows.ranking.results import RankSettings
from crack_md.workflows.screening.reader import read_screening
from tests.workflows.screening.small_screenings import NO_PLATINUM, fast, rows, run

AG, AU, CU, NI = 47, 79, 29, 28
LIMITS = Limits(
    adsorbates=("O",),
    largest_shares={NI: 0.25},
    doubtful_elements={AU: "0.3 eV too weak"},
    label_spreads=(
        LabelSpread(frozenset({AG, CU}), 0.06),
        LabelSpread(frozenset({AG, AU, CU, NI}), 0.21),
    ),
)
MODEL: ModelInfo = replace(NO_PLATINUM, limits=LIMITS)


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("screened")
    entries = [
        StructureEntry(metal, fcc111(metal, (1, 1, 3), vacuum=8.0))
        for metal in ("Ag", "Au", "Ni")
    ]
    run(folder, entries, model=MODEL, settings=fast("O"), distance=LIMITS.distance)
    return folder


def test_rows_beyond_the_limits_have_no_number_and_say_why(screened: Path) -> None:
    found = {row["slab"]: row for row in rows(screened / "results.csv")}
    assert found["Ni"]["status"] == "no_valid_site"
    assert found["Ni"]["dE_O_H2O_H2_eV"] == ""
    assert "out_of_domain (100 % Ni near the surface" in found["Ni"]["error"]
    assert found["Ag"]["status"] == "ok"
    sites = [row for row in rows(screened / "sites.csv") if row["slab"] == "Ni"]
    assert {row["status"] for row in sites} == {"out_of_domain"}


def test_doubtful_elements_are_warnings_of_the_row(screened: Path) -> None:
    found = {row["slab"]: row["warnings"] for row in rows(screened / "results.csv")}
    assert "Au: 0.3 eV too weak" in found["Au"]
    assert "too weak" not in found["Ag"]


def test_ranking_assumes_the_spread_of_the_labels(screened: Path) -> None:
    screening = read_screening(screened)
    assert screening.label_spreads == {"Ag": 0.06, "Au": 0.21, "Ni": 0.21}
    assumed = from_labels({"Ag": 0.06, "Au": 0.21})
    assert assumed.independent_text == "0.06 to 0.21 eV"
    ranking = rank_slabs(screening, settings=RankSettings(assumed=assumed))
    half = {
        slab.slab: (slab.energies[0].dE_high_eV - slab.energies[0].dE_low_eV) / 2
        for slab in ranking.slabs
    }
    z = 1.959963984540054
    assert half["Ag"] == pytest.approx(z * (0.10**2 + 0.06**2) ** 0.5, abs=1e-3)
    assert half["Au"] == pytest.approx(z * (0.10**2 + 0.21**2) ** 0.5, abs=1e-3)


def test_without_spreads_errors_are_as_ever() -> None:
    assert from_labels({}) == AssumedErrors()
    assert AssumedErrors().independent_text == "0.12 eV"
