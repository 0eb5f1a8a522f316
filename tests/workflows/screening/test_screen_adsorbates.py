"""Several adsorbates, molecules, random places, and what rows say about them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import fcc111

from crack_md.errors import ConfigError
from crack_md.structures import StructureEntry
from crack_md.workflows.orr import WATER_FORMATION_EV
from crack_md.workflows.screening.results import ScreenResult
from tests.workflows.screening.small_screenings import (
    NO_PLATINUM,
    fast,
    rows,
    run,
    slab,
)

INTERMEDIATES = "O,OH,OOH"


def copper() -> Atoms:
    return fcc111("Cu", (2, 2, 3), vacuum=8.0)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScreenResult]:
    """Return O* and OH* on copper; the Pt(111) reference has them too."""
    folder = tmp_path_factory.mktemp("both")
    return folder, run(folder, [StructureEntry("Cu", copper())], settings=fast("O,OH"))


def test_every_adsorbate_has_its_own_gas_molecules(
    both: tuple[Path, ScreenResult],
) -> None:
    """EMT's made-up gases: H2O 0 eV, H2 1.5 eV."""
    expected = {"O": 0.0 - 1.5, "OH": 0.0 - 1.5 / 2}
    seen = Counter()
    for row in rows(both[0] / "sites.csv"):
        name = row["adsorbate"]
        seen[row["slab"], name] += 1
        other = "O" if name == "OH" else "OH"
        assert row[f"dE_{other}_H2O_H2_eV"] == ""
        if row["status"] != "converged":
            continue
        dE = float(row[f"dE_{name}_H2O_H2_eV"])
        difference = float(row["energy_eV"]) - float(row["clean_slab_energy_eV"])
        assert dE == pytest.approx(difference - expected[name], abs=3e-4)
        half = float(row[f"dE_{name}_halfO2_eV"])
        assert half == pytest.approx(dE - 2.76, abs=2e-4)
        correction = {"O": 0.04, "OH": 0.34 - 0.575}[name]  # water at OH*
        assert float(row[f"dG_{name}_eV"]) == pytest.approx(dE + correction, abs=2e-4)
    assert seen["Cu", "O"] == 4
    assert seen["Cu", "OH"] == 8  # it leans, so it starts turned two ways
    assert pytest.approx(-2.76) == WATER_FORMATION_EV


def test_computed_intermediates_make_the_diagram(
    both: tuple[Path, ScreenResult],
) -> None:
    folder, result = both
    (row,) = rows(folder / "results.csv")
    dG_O, dG_OH = float(row["dG_O_eV"]), float(row["dG_OH_eV"])
    # OH* has water, and so has the line of scaling that goes with it
    assert (row["scaling"], row["solvation"]) == ("hansen-2014", "calle-vallejo-2015")
    steps = (dG_OH + 3.16 - 4.92, dG_O - dG_OH - 3.16, dG_OH - dG_O, -dG_OH)
    assert float(row["U_L_V"]) == pytest.approx(-max(steps), abs=2e-4)
    assert row["limiting_step"] == str(steps.index(max(steps)) + 1)
    assert row["inferred"] == "OOH"
    assert float(row["U_L_low_V"]) <= float(row["U_L_V"]) <= float(row["U_L_high_V"])
    (ranked,) = result.slabs
    assert ranked.diagram is not None
    assert ranked.diagram.dG_OH_eV == pytest.approx(dG_OH, abs=1e-4)
    lowest = min(s.adsorption_energy for s in ranked.of("OH") if s.is_valid)
    assert float(row["dE_OH_H2O_H2_eV"]) == pytest.approx(lowest, abs=1e-4)


def test_distance_to_platinum_of_every_adsorbate(
    both: tuple[Path, ScreenResult],
) -> None:
    _, result = both
    assert result.pt111 is not None
    for name in ("O", "OH"):
        here, there = result.slabs[0].best_of(name), result.pt111.best_of(name)
        assert here is not None
        assert there is not None
        assert result.slabs[0].energies_vs_pt111[name] == pytest.approx(
            here.adsorption_energy - there.adsorption_energy
        )


def test_folder_takes_further_adsorbates_and_places(
    both: tuple[Path, ScreenResult], tmp_path: Path
) -> None:
    """The order in which they come does not matter for the table."""
    entries = [StructureEntry("Cu", copper())]
    first = run(tmp_path, entries, settings=fast("O"))
    assert first.n_relaxed == 2 * (1 + 4)
    second = run(tmp_path, entries, settings=fast("O,OH"))
    assert second.n_reused == first.n_relaxed
    assert second.n_relaxed == 2 * 8
    for name in ("results.csv", "sites.csv"):
        assert (tmp_path / name).read_bytes() == (both[0] / name).read_bytes()
    third = run(tmp_path, entries, settings=fast("O", random_placements=2))
    assert third.n_relaxed == 2 * 2
    more = run(tmp_path, entries, settings=fast("O", random_placements=3))
    assert more.n_relaxed == 2
    other = run(tmp_path, entries, settings=fast("O", random_placements=3, seed=1))
    assert other.n_relaxed == 2 * 3


def test_random_places_count_like_sites(tmp_path: Path) -> None:
    entries = [StructureEntry("Cu", copper())]
    result = run(
        tmp_path, entries, model=NO_PLATINUM, settings=fast(random_placements=4)
    )
    drawn = [s for s in result.slabs[0].sites if s.record.site.startswith("random-")]
    assert [s.record.site for s in drawn] == [f"random-{n}" for n in range(1, 5)]
    named = {s.record.final_site for s in drawn}
    assert named <= {"ontop", "bridge", "fcc", "hcp"}
    best = result.slabs[0].best
    assert best is not None
    found = [s.adsorption_energy for s in drawn if s.record.final_site == "fcc"]
    assert found
    assert min(found) == pytest.approx(best.adsorption_energy, abs=0.02)


def test_peroxyl_that_falls_apart_is_inferred_instead(tmp_path: Path) -> None:
    """EMT cannot hold OOH together."""
    entries = [StructureEntry("Cu", copper())]
    dry = fast(INTERMEDIATES, solvation="none")
    result = run(tmp_path, entries, model=NO_PLATINUM, settings=dry)
    (row,) = result.slabs
    statuses = {site.record.status for site in row.of("OOH")}
    assert statuses == {"dissociated"}
    assert all(site.adsorption_energy is None for site in row.of("OOH"))
    assert row.status == "ok"
    assert row.diagram is not None
    assert row.diagram.inferred == ("OOH",)
    first, second = row.warnings
    assert first == "OOH* has no valid site: 8 dissociated"
    assert second.startswith("U_L is 0.36 V by O, OH as computed, without water")
    (only,) = run(tmp_path, entries, model=NO_PLATINUM, settings=fast("OOH")).slabs
    assert (only.status, only.rank) == ("no_valid_site", None)
    assert only.error == "OOH* has no valid site: 8 dissociated"


def test_molecule_without_a_part_in_oxygen_reduction(tmp_path: Path) -> None:
    gases = {"H2O": 0.0, "H2": 1.5, "CO": 0.7}
    model = replace(NO_PLATINUM, gas_references=gases)
    entries = [
        StructureEntry("Cu", copper()),
        StructureEntry("Au", fcc111("Au", (2, 2, 3), vacuum=8.0)),
    ]
    result = run(tmp_path, entries, model=model, settings=fast("CO:C", fmax=0.2))
    energies = [float(row["dE_CO_H2O_H2_eV"]) for row in rows(tmp_path / "results.csv")]
    assert energies == sorted(energies)
    for ranked in result.slabs:
        assert ranked.best is not None
        assert ranked.clean is not None
        record = ranked.best.record
        assert ranked.best.adsorption_energy == pytest.approx(
            record.energy - ranked.clean.energy - 0.7
        )
        assert ranked.best.free_energy is None
        assert ranked.limiting_potential is None
    assert [ranked.rank for ranked in result.slabs] == [1, 2]


def test_gas_energy_of_a_molecule_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"CO need.*missing: CO;"):
        run(tmp_path, [StructureEntry("Cu", copper())], settings=fast("CO:C"))


def test_published_gas_energies_stand_in_for_the_models(tmp_path: Path) -> None:
    """OC20: O is -7.204 eV, whatever the model says of H2O and H2."""
    settings = fast(reference="OC20", fmax=0.2)
    entries = [StructureEntry("Cu", copper())]
    (row,) = run(tmp_path, entries, model=NO_PLATINUM, settings=settings).slabs
    assert row.best is not None
    assert row.clean is not None
    difference = row.best.record.energy - row.clean.energy
    assert row.best.adsorption_energy == pytest.approx(difference + 7.204)


def test_limit_on_sites_is_told(tmp_path: Path) -> None:
    entries = [StructureEntry("Cu", copper())]
    result = run(tmp_path, entries, model=NO_PLATINUM, settings=fast(max_sites=2))
    assert len(result.slabs[0].sites) == 2
    assert "2 of 4 sites, drawn at random" in result.slabs[0].warnings


@pytest.mark.parametrize(
    ("spin", "warned"),
    [
        (False, "the model was not spin-polarised"),
        (None, "may not have been"),
        (True, ""),
    ],
)
def test_magnetic_metals_are_warned_about(
    tmp_path: Path, spin: bool | None, warned: str
) -> None:
    model = replace(NO_PLATINUM, spin_polarised=spin)
    nickel = fcc111("Ni", (2, 2, 3), vacuum=8.0)
    (row,) = run(tmp_path, [StructureEntry("Ni", nickel)], model=model).slabs
    assert any(warned in w and w.startswith("Ni") for w in row.warnings) == bool(warned)
    assert bool(row.warnings) == bool(warned)


def test_row_tells_preparation_and_crowding(tmp_path: Path) -> None:
    entry = StructureEntry("Cu", slab("Cu"), notes=("cut from a bulk",))
    run(tmp_path, [entry], model=NO_PLATINUM)
    (row,) = rows(tmp_path / "results.csv")
    assert row["preparation"] == (
        "cut from a bulk; made periodic along its normal; tags were not OC20's: 1 "
        "surface atoms found; fixed the lower 1 of 3 layers"
    )
    assert row["warnings"] == "adsorbates are 2.6 Å apart: a high coverage, they repel"
