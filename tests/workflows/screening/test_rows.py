from dataclasses import replace

import numpy as np
import pytest

from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.relax.store import RelaxationRecord
from crack_md.workflows.screening.plan import ScreenSettings
from crack_md.workflows.screening.results import (
    ScreenResult,
    SiteResult,
    SlabResult,
)
from crack_md.workflows.screening.screen import rank
from crack_md.workflows.screening.tables import site_rows, slab_rows, summarize
from crack_md.workflows.surfaces.adsorbates import parse_adsorbates

SETTINGS = ScreenSettings(adsorbates=parse_adsorbates("O,OH,OOH"), solvation="none")
ENERGIES = {"O": 1.6, "OH": 0.4, "OOH": 3.4}
CORRECTIONS = {"O": 0.04, "OH": 0.34, "OOH": 0.41}


def screening() -> ScreenResult:
    sites = tuple(
        SiteResult(
            RelaxationRecord(
                name, "Pt", "fcc", "converged", final_site="hcp", adsorbate=name
            ),
            "Pt3/Pt",
            4,
            energy,
            energy + CORRECTIONS[name],
            "fcc-Pt3",
        )
        for name, energy in ENERGIES.items()
    )
    slab = SlabResult("Pt", "Pt16", "ok", sites=sites, preparation=("a", "b"))
    (ranked,) = rank([slab], SETTINGS, slab)
    bad = SlabResult("bulk", "Pt4", "no_surface", "no vacuum")
    model = ModelInfo("test", "0", "total")
    return ScreenResult((ranked, bad), model, SETTINGS, ranked, "x", 3, 0)


def test_both_scales_of_every_adsorbate() -> None:
    """ΔE against ½O2 is lower by 2.76 eV for every oxygen atom."""
    row, _ = slab_rows(screening())
    for name, n_oxygen in (("O", 1), ("OH", 1), ("OOH", 2)):
        assert row[f"dE_{name}_H2O_H2_eV"] == ENERGIES[name]
        half = ENERGIES[name] - 2.76 * n_oxygen
        assert row[f"dE_{name}_halfO2_eV"] == pytest.approx(half)
        assert row[f"dE_{name}_vs_Pt111_eV"] == 0.0


def test_potentials_by_hand() -> None:
    """ΔG 1.64, 0.74, 3.81: steps -1.11, -2.17, -0.90, -0.74 eV.

    The band: lowest OH* inferred from OOH* alone, 0.40 + 3.40 - 3.2; highest OH* from
    O* alone, (1.60 + 0.05)/2.
    """
    row, bad = slab_rows(screening())
    assert row["U_L_V"] == pytest.approx(0.74)
    assert row["overpotential_V"] == pytest.approx(0.49)
    assert row["limiting_step"] == 4
    assert (row["U_L_low_V"], row["U_L_high_V"]) == pytest.approx((0.60, 0.825))
    assert row["U_L_by_constants_V"] == pytest.approx(0.005)  # 0.34 or 0.35 eV
    assert row["U_L_by_scaling_V"] == 0.0
    assert row["U_L_by_model_V"] == pytest.approx(np.hypot(0.10, 0.12))
    assert (row["scaling"], row["solvation"]) == ("man-2011", "none")
    assert row["inferred"] == ""
    assert row["preparation"] == "a; b"
    assert bad["U_L_V"] is None
    assert bad["error"] == "no vacuum"
    assert list(bad) == list(row)


def test_columns_of_the_first_adsorbate_keep_their_names() -> None:
    row, _ = slab_rows(screening())
    expected = "rank slab formula status best_site start_site final_site dE_O_H2O_H2_eV"
    assert list(row)[:8] == expected.split()
    assert row["OH_best_site"] == "fcc"  # it did not migrate
    assert row["OH_start_site"] == "fcc"
    assert row["OH_final_site"] == "hcp"


def test_sites_fill_the_columns_of_their_adsorbate_only() -> None:
    oxygen, hydroxyl, _ = site_rows(screening())
    assert oxygen["dE_O_H2O_H2_eV"] == 1.6
    assert oxygen["dE_OH_H2O_H2_eV"] is None
    assert hydroxyl["dE_O_H2O_H2_eV"] is None
    assert hydroxyl["environment"] == "fcc-Pt3"


def test_sites_name_their_relaxations_and_the_best() -> None:
    """A second start for OH*, weaker by 0.2 eV, does not decide about the slab."""
    result = screening()
    (pt, bad) = result.slabs
    oxygen, hydroxyl, peroxyl = pt.sites
    weaker = replace(
        hydroxyl,
        record=replace(hydroxyl.record, key="turned"),
        adsorption_energy=0.6,
    )
    sites = (oxygen, weaker, hydroxyl, peroxyl)
    clean = RelaxationRecord("bare", "Pt", "", "converged")
    pt = replace(pt, sites=sites, clean=clean)
    rows = site_rows(replace(result, slabs=(pt, bad), pt111=pt))
    found = [(row["relaxation_key"], row["is_best"]) for row in rows]
    assert found == [("O", True), ("turned", False), ("OH", True), ("OOH", True)]
    assert {row["clean_slab_key"] for row in rows} == {"bare"}


def test_summary_has_diagrams_and_sources() -> None:
    summary = summarize(screening())
    best = summary["ranking"][0]
    assert best["free_energies_eV"] == {
        "O2": 4.92,
        "OOH*": 3.81,
        "O*": 1.64,
        "OH*": 0.74,
        "H2O": 0.0,
    }
    assert best["steps_eV"] == [-1.11, -2.17, -0.9, -0.74]
    for name in ("reference", "corrections", "scaling"):
        assert summary["settings"][f"{name}_source"]
    assert summary["settings"]["adsorbates"] == ["O", "OH", "OOH"]


def oxygen(start: str, end: str, energy: float, *, migrated: bool) -> SiteResult:
    record = RelaxationRecord(
        start, "Pt", start, "converged", final_site=end, migrated=migrated
    )
    return SiteResult(replace(record, adsorbate="O"), "Pt3", 1, energy, energy + 0.04)


@pytest.mark.parametrize(
    ("by", "words"),
    [(0.0001, "fcc"), (0.0009, "fcc"), (0.0011, "bridge to fcc")],
)
def test_ties_go_to_the_start_that_did_not_migrate(by: float, words: str) -> None:
    """The bridge slides to fcc and is lower by less, or more, than 1 meV."""
    sites = (
        oxygen("bridge", "fcc", 1.6 - by, migrated=True),
        oxygen("fcc", "fcc", 1.6, migrated=False),
    )
    settings = ScreenSettings()
    slabs = rank([SlabResult("Pt", "Pt16", "ok", sites=sites)], settings)
    model = ModelInfo("test", "0", "total")
    result = ScreenResult(slabs, model, settings, None, "x", 2, 0)
    (row,) = slab_rows(result)
    assert row["best_site"] == words
    assert (row["start_site"], row["final_site"]) == (words.split(" to ")[0], "fcc")


def test_says_where_computed_energies_leave_the_scaling() -> None:
    """OH* too weak by 0.6 eV: U_L falls from 0.82 to ΔG_O - ΔG_OH = 0.3 V."""
    weak = screening().slabs[0].sites[1]
    energies = {"O": 1.6, "OH": 1.0}
    sites = tuple(
        replace(
            weak,
            record=replace(weak.record, adsorbate=name),
            adsorption_energy=energies[name],
            free_energy=energies[name] + CORRECTIONS[name],
        )
        for name in energies
    )
    (slab,) = rank([SlabResult("Pt", "Pt16", "ok", sites=sites)], SETTINGS)
    assert "U_L is 0.30 V by O, OH as computed" in slab.warnings[-1]
    assert "0.82 V by O and scaling" in slab.warnings[-1]
    assert screening().slabs[0].warnings == ()
