import csv
from pathlib import Path

import pytest

from crack_md.errors import DataError
from crack_md.workflows.ranking.calibration import read_reference_values
from crack_md.workflows.screening.reader import SavedScreening, read_screening
from tests.workflows.ranking.screenings import write_csv, write_screening


@pytest.fixture
def screening(tmp_path: Path) -> SavedScreening:
    return read_screening(write_screening(tmp_path / "results"))


def written(folder: Path, text: str) -> Path:
    path = folder / "dft.csv"
    path.write_text(text)
    return path


def test_values_are_matched_with_sites(
    tmp_path: Path, screening: SavedScreening, caplog: pytest.LogCaptureFixture
) -> None:
    text = "slab,site,adsorbate,dE\nPt(111),,,1.5\nPd(111),hcp,O*,1.7\nPt(111),,OH,0\n"
    platinum, palladium = read_reference_values(written(tmp_path, text), screening)
    assert (platinum.slab, platinum.site, platinum.is_best) == ("Pt(111)", "fcc", True)
    assert (platinum.dft_eV, platinum.model_eV) == (1.5, 1.62)
    assert (palladium.site, palladium.is_best) == ("hcp", False)
    assert palladium.model_eV == pytest.approx(1.65)
    assert caplog.messages == ["left out: 1 values of OH*, which was not screened"]


def test_named_best_site_is_the_best(tmp_path: Path, screening: SavedScreening) -> None:
    path = written(tmp_path, "slab,site,dE_eV\nPt(111),fcc,1.5\n")
    assert read_reference_values(path, screening)[0].is_best


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slab,dE\nPt(111),x\n", "line 2: 'x' is no energy in eV"),
        ("slab,dE\nPt(111),nan\n", "line 2: 'nan' is no energy in eV"),
        ("slab,dE\n\nPt(111)\n", "line 3: '' is no energy in eV"),
        (
            "slab,dE\nPt(11),1\n",
            r"no result for O on a slab 'Pt\(11\)'; did you .* 'Pt\(111",
        ),
        (
            "slab,dE\nbulk,1\n",
            "line 2: the screening has no result for O on a slab 'bulk'",
        ),
        ("slab,site,dE\nPt(111),top,1\n", "no converged site 'top'; it has: fcc, hcp"),
        ("slab,site,dE\nPt(111),ontop,1\n", "no converged site 'ontop'"),
        ("slab,dE\nPt(111),1\nPt(111),2\n", r"line 3: 'Pt\(111\)' fcc is there twice"),
        ("slab,energy\nPt(111),1\n", "no column with energies; expected slab, dE_eV"),
        ("slab,dE,dE_eV\nPt(111),1,1\n", "more than one column with energies"),
        ("name,dE\nPt(111),1\n", "no column 'slab'"),
        ("slab,dE\n", "no column with energies|holds no value"),
        ("slab,adsorbate,dE\nPt(111),OH,1\n", "holds no value for O"),
    ],
)
def test_one_clear_line_for_what_is_wrong(
    tmp_path: Path, screening: SavedScreening, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_reference_values(written(tmp_path, text), screening)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path, screening: SavedScreening) -> None:
    with pytest.raises(DataError, match=r"no such file: .*absent\.csv"):
        read_reference_values(tmp_path / "absent.csv", screening)


@pytest.mark.parametrize(("largest", "is_taken"), [(0.08, True), (0.5, False)])
def test_plateaus_count_as_in_the_ranking(
    tmp_path: Path, largest: float, is_taken: bool
) -> None:
    """At 0.5 eV/Å nothing is at rest: the ranking refuses it, and so do DFT values."""
    folder = write_screening(tmp_path / "results")
    rows = list(csv.DictReader((folder / "sites.csv").read_text().splitlines()))
    for row in rows:
        if row["slab"] == "Pd(111)" and row["site"] == "hcp":
            row |= {"status": "plateau", "fmax_eV_per_A": str(largest)}
    write_csv(folder / "sites.csv", rows)
    path = written(tmp_path, "slab,site,dE\nPd(111),hcp,1.7\n")
    if is_taken:
        assert read_reference_values(path, read_screening(folder))
        return
    with pytest.raises(DataError, match="no converged site 'hcp'"):
        read_reference_values(path, read_screening(folder))
