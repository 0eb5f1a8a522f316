from pathlib import Path

import pytest

from crack_md.errors import ConfigError, DataError
from crack_md.workflows.screening.reader import number, read_rows, read_screening
from tests.workflows.ranking.screenings import write_csv, write_screening


def test_candidates_are_the_ranked_slabs_best_first(tmp_path: Path) -> None:
    found = read_screening(write_screening(tmp_path))
    names = [candidate.slab for candidate in found.candidates]
    assert names == ["Pt3Ni(111)", "Pt(111)", "Pd(111)", "Au(111)"]
    best = found.candidates[0]
    (oxygen,) = best.adsorbed
    assert oxygen is best.on("O")
    assert (oxygen.start, oxygen.site, oxygen.dE_eV) == ("bridge", "fcc", 1.70)
    assert oxygen.dG_eV == pytest.approx(1.74)
    assert oxygen.spread_eV is None
    assert best.on("OH") is None
    assert len(found.slabs) == 5
    assert found.volcano.apex == pytest.approx((1.72, 0.86))


def test_spread_of_a_committee_is_read(tmp_path: Path) -> None:
    write_screening(tmp_path, {"Pt(111)": 1.6}, spread={"Pt(111)": 0.07})
    assert read_screening(tmp_path).candidates[0].adsorbed[0].spread_eV == 0.07


def test_several_adsorbates(tmp_path: Path) -> None:
    write_screening(tmp_path, others={"OH": {"Pt(111)": 0.5}, "CO": {}})
    found = read_screening(tmp_path)
    assert found.adsorbates == ("O", "OH", "CO")
    both = {c.slab: [a.adsorbate for a in c.adsorbed] for c in found.candidates}
    assert both["Pt(111)"] == ["O", "OH"]
    assert both["Pd(111)"] == ["O"]
    hydroxyl = found.candidates[1].on("OH")
    assert hydroxyl is not None
    assert (hydroxyl.site, hydroxyl.dG_eV) == ("fcc", 0.85)
    assert found.volcano.adsorbate == "O"


def test_unknown_columns_statuses_and_gaps_are_carried_along(tmp_path: Path) -> None:
    write_screening(tmp_path)
    rows = [
        {
            "slab": "7",
            "rank": "1",
            "dE_O_H2O_H2_eV": "1",
            "dG_O_eV": "1.04",
            "new": "x",
        },
        {"slab": "odd", "status": "melted", "dG_O_eV": "nan"},
        {"slab": "no energy", "rank": "2"},
    ]
    write_csv(tmp_path / "results.csv", rows)
    found = read_screening(tmp_path)
    assert [candidate.slab for candidate in found.candidates] == ["7"]
    assert found.slabs[0]["new"] == "x"
    assert number(found.slabs[1], "dG_O_eV") is None
    assert number(found.slabs[1], "absent") is None


@pytest.mark.parametrize("name", ["results.csv", "sites.csv", "summary.json"])
def test_folder_without_a_finished_screening(tmp_path: Path, name: str) -> None:
    (write_screening(tmp_path) / name).unlink()
    with pytest.raises(DataError, match=rf"no finished screening: no {name}"):
        read_screening(tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_screening(tmp_path)
    (tmp_path / "summary.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"summary\.json"):
        read_screening(tmp_path)
    write_screening(tmp_path)
    (tmp_path / "results.csv").write_bytes(b"slab\n\xff\n")
    with pytest.raises(DataError, match=r"results\.csv"):
        read_screening(tmp_path)
    (tmp_path / "results.csv").write_text("")
    with pytest.raises(DataError, match=r"no column 'slab'; found: an empty file"):
        read_screening(tmp_path)


def test_other_adsorbates_have_no_volcano(tmp_path: Path) -> None:
    found = read_screening(
        write_screening(tmp_path, summary={"settings": {"adsorbate": "CO"}})
    )
    assert found.candidates == ()
    with pytest.raises(ConfigError, match="'CO' is no intermediate"):
        _ = found.volcano


def test_tables_as_spreadsheets_write_them(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfslab; dE\r\nPt(111); 1.5\r\n")
    assert read_rows(path) == ({"slab": "Pt(111)", "dE": "1.5"},)
    path.write_text("slab,dE\nPt,1,2,3\nAu\n")
    assert read_rows(path) == ({"slab": "Pt", "dE": "1"}, {"slab": "Au", "dE": ""})
