import csv
import json
from pathlib import Path

import numpy as np
import pytest

from crack_md.errors import ConfigError, DataError
from crack_md.workflows.ranking.calibration import ReferenceValue
from crack_md.workflows.ranking.errors import AssumedErrors
from crack_md.workflows.ranking.rank import rank_slabs
from crack_md.workflows.ranking.results import (
    Ranking,
    RankSettings,
    Rescored,
    read_ranking,
    write_ranking,
)
from crack_md.workflows.screening.reader import SavedScreening, read_screening
from tests.workflows.ranking.screenings import ENERGIES, write_csv, write_screening

Z = 1.959963984540054
SURE = AssumedErrors(shared_eV=0.0, independent_eV=1e-6)


@pytest.fixture
def screening(tmp_path: Path) -> SavedScreening:
    return read_screening(write_screening(tmp_path))


def value(slab: str, dft: float, *, is_best: bool = True) -> ReferenceValue:
    return ReferenceValue(slab, "O", "fcc", dft, ENERGIES[slab], is_best)


def teacher(slab: str, dE: float | None, status: str = "single_point") -> Rescored:
    return Rescored(slab, "O", "fcc", "big", "1", False, ENERGIES[slab], dE, status)


def by_name(ranking: Ranking) -> dict[str, tuple[float, float, float]]:
    return {
        slab.slab: (energy.dE_low_eV, energy.dE_eV, energy.dE_high_eV)
        for slab in ranking.slabs
        for energy in slab.energies
        if energy.adsorbate == "O"
    }


def sources(ranking: Ranking) -> dict[str, str]:
    return {slab.slab: slab.energies[0].source for slab in ranking.slabs}


def test_assumed_errors_by_hand(screening: SavedScreening) -> None:
    assumed = AssumedErrors(shared_eV=0.03, independent_eV=0.04)
    found = rank_slabs(screening, settings=RankSettings(assumed=assumed))
    assert [slab.rank for slab in found.slabs] == [1, 2, 3, 4]
    assert [slab.slab for slab in found.slabs] == [
        candidate.slab for candidate in screening.candidates
    ]
    platinum = found.slabs[1]
    half = Z * 0.05
    (oxygen,) = platinum.energies
    assert oxygen.dE_low_eV == pytest.approx(1.62 - half)
    assert oxygen.dG_high_eV == pytest.approx(1.66 + half)
    # the interval of ΔG reaches over the apex at 1.72
    limits = (platinum.U_L_low_V, platinum.U_L_V, platinum.U_L_high_V)
    assert limits == pytest.approx(((1.66 - half) / 2, 0.83, 0.86))


def test_without_errors_ranks_are_certain(screening: SavedScreening) -> None:
    found = rank_slabs(screening, settings=RankSettings(top=2, assumed=SURE))
    assert [slab.p_best for slab in found.slabs] == [1.0, 0.0, 0.0, 0.0]
    assert [slab.p_top for slab in found.slabs] == [1.0, 1.0, 0.0, 0.0]
    assert [slab.rank_low for slab in found.slabs] == [1, 2, 3, 4]
    assert found.shortlist == ("Pt3Ni(111)", "Pt(111)")


def test_an_offset_by_dft_can_turn_the_order(screening: SavedScreening) -> None:
    """With O bound 0.5 eV weaker, palladium is nearest to the apex."""
    reference = [value("Au(111)", 3.11, is_best=False)]
    settings = RankSettings(assumed=SURE)
    found = rank_slabs(screening, reference=reference, settings=settings)
    energies = by_name(found)
    for name, dE in ENERGIES.items():
        assert energies[name][1] == pytest.approx(dE + 0.5)
    assert found.slabs[0].slab == "Pd(111)"
    assert found.slabs[0].screen_rank == 3
    assert found.corrections["O"].kind == "offset"


def test_a_slab_computed_by_dft_has_that_value(screening: SavedScreening) -> None:
    found = rank_slabs(screening, reference=[value("Pt(111)", 1.5)])
    half = 1.959963984540054 * 0.03  # of one DFT value
    expected = (1.5 - half, 1.5, 1.5 + half)
    assert by_name(found)["Pt(111)"] == pytest.approx(expected, abs=1e-6)
    assert sources(found) == {**dict.fromkeys(ENERGIES, "model"), "Pt(111)": "DFT"}


def test_rescored_slabs_take_the_others_along(screening: SavedScreening) -> None:
    """Two slabs are 0.2 eV lower by the other model: so are those it has not seen."""
    rescored = [
        teacher("Pt3Ni(111)", 1.50),
        teacher("Pt(111)", 1.42),
        teacher("Pd(111)", None, "failed"),
    ]
    settings = RankSettings(assumed=SURE)
    found = rank_slabs(screening, rescored=rescored, settings=settings)
    energies = by_name(found)
    assert energies["Pt(111)"][1] == pytest.approx(1.42)
    assert energies["Pd(111)"][1] == pytest.approx(1.35)
    assert energies["Au(111)"][1] == pytest.approx(2.41)
    assert sources(found)["Pt(111)"] == "big"
    assert found.between_models["O"].n == 2


def test_dft_corrects_what_was_rescored(screening: SavedScreening) -> None:
    rescored = [teacher("Pt3Ni(111)", 1.50), teacher("Pt(111)", 1.42)]
    reference = [value("Pt3Ni(111)", 1.8), value("Pd(111)", 1.65, is_best=False)]
    found = rank_slabs(screening, rescored=rescored, reference=reference)
    # 1.8 - 1.5 and 1.65 - (1.55 - 0.2): both 0.3
    assert found.corrections["O"].offset == pytest.approx(0.3)
    assert by_name(found)["Pt(111)"][1] == pytest.approx(1.72)


def test_a_rescored_energy_stands_and_is_what_dft_corrects(
    screening: SavedScreening,
) -> None:
    """-0.2 and -0.1 eV: -0.15 for the others, but not for these two themselves."""
    rescored = [teacher("Pt3Ni(111)", 1.50), teacher("Pt(111)", 1.52)]
    found = by_name(rank_slabs(screening, rescored=rescored))
    assert found["Pt3Ni(111)"][1] == pytest.approx(1.50)
    assert found["Pt(111)"][1] == pytest.approx(1.52)
    assert found["Pd(111)"][1] == pytest.approx(1.40)
    widths = {name: high - low for name, (low, _, high) in found.items()}
    assert widths["Pt(111)"] == pytest.approx(2 * Z * np.hypot(0.10, 0.12))
    assert widths["Pd(111)"] > widths["Pt(111)"] + 0.1
    reference = [value("Pt(111)", 1.62)]
    both = rank_slabs(screening, rescored=rescored, reference=reference)
    assert both.corrections["O"].offset == pytest.approx(0.1)
    assert by_name(both)["Pt3Ni(111)"][1] == pytest.approx(1.60)


def test_spread_of_a_committee_widens_intervals(tmp_path: Path) -> None:
    spread = {"Pt(111)": 0.4, "Pd(111)": 0.01}
    folder = write_screening(
        tmp_path, {"Pt(111)": 1.62, "Pd(111)": 1.55}, spread=spread
    )
    found = by_name(rank_slabs(read_screening(folder)))
    widths = {name: high - low for name, (low, _, high) in found.items()}
    assert widths["Pt(111)"] == pytest.approx(
        2 * Z * np.hypot(0.1, np.hypot(0.12, 0.4))
    )
    assert widths["Pd(111)"] == pytest.approx(
        2 * Z * np.hypot(0.1, np.hypot(0.12, 0.01))
    )


def test_a_slab_that_the_committee_missed_gets_the_largest_spread(
    screening: SavedScreening,
) -> None:
    found = rank_slabs(
        screening, spread_eV={("Pt(111)", "O"): 0.3, ("Au(111)", "O"): 0.1}
    )
    widths = {n: high - low for n, (low, _, high) in by_name(found).items()}
    assert found.has_committee
    assert widths["Pd(111)"] == pytest.approx(widths["Pt(111)"])
    assert widths["Au(111)"] < widths["Pt(111)"]


def test_seeds_repeat_and_the_order_of_rows_does_not_matter(
    screening: SavedScreening, tmp_path: Path
) -> None:
    first = rank_slabs(screening, settings=RankSettings(seed=3))
    other = tmp_path / "other"
    other.mkdir()
    for name in ("sites.csv", "summary.json"):
        (other / name).write_bytes((screening.folder / name).read_bytes())
    write_csv(other / "results.csv", screening.slabs[::-1])
    assert rank_slabs(read_screening(other), settings=RankSettings(seed=3)) == first
    assert rank_slabs(screening, settings=RankSettings(seed=4)).slabs != first.slabs


def test_nothing_to_rank(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no slab in .* has a result"):
        rank_slabs(read_screening(write_screening(tmp_path, {})))
    write_screening(tmp_path, summary={"settings": {"adsorbate": "CO"}})
    with pytest.raises(ConfigError, match="'CO' is no intermediate"):
        rank_slabs(read_screening(tmp_path))


def test_files_say_the_same(screening: SavedScreening) -> None:
    ranking = rank_slabs(
        screening,
        reference=[value("Pt(111)", 1.5)],
        settings=RankSettings(top=2),
    )
    told = write_ranking(ranking, screening.folder, model="test")
    assert told == json.loads((screening.folder / "ranking.json").read_text())
    assert told == read_ranking(screening.folder)
    assert told["model"] == "test"
    assert told["corrections"]["O"]["degrees_of_freedom"] is None  # infinite
    with (screening.folder / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["slab"] for row in rows] == [slab.slab for slab in ranking.slabs]
    first = ranking.slabs[0]
    assert float(rows[0]["P_top2"]) == pytest.approx(first.p_top, abs=1e-4)
    (oxygen,) = first.energies
    low = float(rows[0]["dG_O_interval_low_eV"])
    assert low == pytest.approx(oxygen.dG_low_eV, abs=1e-4)
    assert float(rows[0]["dE_O_screened_eV"]) == oxygen.screened_dE_eV


def test_a_ranking_of_older_results_is_not_read(screening: SavedScreening) -> None:
    assert read_ranking(screening.folder) is None
    write_ranking(rank_slabs(screening), screening.folder)
    assert read_ranking(screening.folder) is not None
    write_screening(screening.folder, {"Pt(111)": 1.6})
    assert read_ranking(screening.folder) is None
    (screening.folder / "ranking.json").write_text("{")
    assert read_ranking(screening.folder) is None


def two_adsorbates(folder: Path) -> SavedScreening:
    """Return a screening of O* and OH*, where palladium has no result for OH*."""
    write_screening(folder, others={"OH": {"Pt(111)": 0.55, "Pt3Ni(111)": 0.30}})
    return read_screening(folder)


def test_two_adsorbates_by_hand(tmp_path: Path) -> None:
    """ΔG_OH 0.9 limits Pt(111) by OH*: OOH* 4.1, steps -0.82, -2.44, -0.76, -0.9."""
    settings = RankSettings(assumed=SURE)
    found = rank_slabs(two_adsorbates(tmp_path), settings=settings)
    rows = {slab.slab: slab for slab in found.slabs}
    assert found.adsorbates == ("O", "OH")
    oxygen, hydroxyl = rows["Pt(111)"].energies
    assert (oxygen.adsorbate, hydroxyl.adsorbate) == ("O", "OH")
    assert hydroxyl.dG_eV == pytest.approx(0.9)
    platinum = rows["Pt(111)"]
    potentials = (platinum.U_L_low_V, platinum.U_L_V, platinum.U_L_high_V)
    assert potentials == pytest.approx((0.76, 0.76, 0.76), abs=1e-4)
    # OH* inferred from O* where it is not known: 1.59/2
    assert len(rows["Pd(111)"].energies) == 1
    assert pytest.approx(0.795) == rows["Pd(111)"].U_L_V


def test_each_adsorbate_has_its_own_correction(tmp_path: Path) -> None:
    reference = [
        value("Pt(111)", 1.72, is_best=False),
        ReferenceValue("Pt(111)", "OH", "fcc", 0.35, 0.55, False),
    ]
    found = rank_slabs(two_adsorbates(tmp_path), reference=reference)
    assert found.corrections["O"].offset == pytest.approx(0.1)
    assert found.corrections["OH"].offset == pytest.approx(-0.2)
    write_ranking(found, tmp_path)
    with (tmp_path / "ranking.csv").open() as file:
        rows = {row["slab"]: row for row in csv.DictReader(file)}
    assert float(rows["Pt3Ni(111)"]["dE_OH_eV"]) == pytest.approx(0.10)
    assert rows["Pd(111)"]["dE_OH_eV"] == ""


def test_interval_of_two_adsorbates_is_that_of_the_draws(tmp_path: Path) -> None:
    """Pt3Ni(111) is limited by its OH* alone, U_L = ΔG_OH, and so is its error."""
    folder = tmp_path
    write_screening(folder, others={"OH": {"Pt3Ni(111)": -0.5}})
    assumed = AssumedErrors(shared_eV=0.03, independent_eV=0.04)
    settings = RankSettings(assumed=assumed, draws=100_000)
    found = rank_slabs(read_screening(folder), settings=settings)
    row = next(slab for slab in found.slabs if slab.slab == "Pt3Ni(111)")
    # ΔG_OH -0.15, ΔG_O 1.74: the fourth step, +0.15 eV, limits by far
    assert pytest.approx(-0.15) == row.U_L_V
    half = (row.U_L_high_V - row.U_L_low_V) / 2
    assert half == pytest.approx(Z * 0.05, rel=0.02)
