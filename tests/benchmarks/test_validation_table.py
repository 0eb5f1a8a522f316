"""The committed numbers of the teacher, scored, tabled and drawn."""

import json
from pathlib import Path

import pytest

from benchmarks import dft_sets, screening, validation_table
from benchmarks.validation_table import between_sources, cell, table

REFERENCE = screening.HERE / "reference"
TABLES = [
    *("--table", str(REFERENCE / f"{screening.TEACHER}-sites.csv")),
    *("--values", str(REFERENCE / f"{screening.TEACHER}-values.csv")),
]
SCORES = {
    "gpaw": {
        "relative_to_Pt111": {"n": 60, "MAE_eV": 0.09949, "spearman": 0.984},
        "not_converged": 1,
        "failed": 2,
        "relaxations_per_cpu_s": 1.0942,
    },
    "teacher": {"best_site_right": 13 / 14},
}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("gpaw relative_to_Pt111 n", "60"),
        ("gpaw relative_to_Pt111 MAE_eV", "0.099"),
        ("gpaw relative_to_Pt111 spearman", "0.98"),
        ("gpaw not_converged|failed", "1, 2"),
        ("gpaw relaxations_per_cpu_s", "1.1"),
        ("teacher best_site_right", "0.93"),
        ("literature Falsig n", "–"),
    ],
)
def test_numbers_as_text(path: str, text: str) -> None:
    assert cell(SCORES, path) == text


def test_models_stand_side_by_side() -> None:
    lines = table({"one": SCORES, "other": {}}).splitlines()
    assert lines[0] == "| | one | other |"
    assert "| MAE / eV | 0.099 | – |" in lines


def test_published_columns_differ_from_one_another() -> None:
    """Blondal and Kreitz against Xu and Kitchin by hand: the median is silver's."""
    line = between_sources()[-1]
    pt, rh, ir, au, pd, cu, ag = 0.1031, 0.0326, 0.0552, 0.0226, 0.1122, 0.1440, 0.0
    assert f"{(pt + rh + ir + au + pd + cu + ag) / 7:.3f} eV" in line


@pytest.mark.skipif(
    not dft_sets.references().is_dir(),
    reason="no reference data: set CRACK_MD_REFERENCES",
)
def test_committed_numbers_of_the_teacher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = tmp_path / "scores.json"
    screening.main(["score", *TABLES, "--json", str(scored)])
    scores = json.loads(scored.read_text())
    alloys = scores["gpaw"]["relative_to_Pt111"]
    assert (alloys["n"], round(alloys["MAE_eV"], 3)) == (60, 0.083)
    metals = scores["xu_kitchin"]
    assert round(metals["all_sites"]["MAE_after_shift_eV"], 3) == 0.162
    assert metals["site_order_accuracy"] == pytest.approx(39 / 42)
    assert "to_teacher" not in metals
    figure = tmp_path / "figure.png"
    capsys.readouterr()
    validation_table.main([f"teacher={scored}", "--figure", str(figure)])
    assert "| MAE / eV | 0.083 |" in capsys.readouterr().out
    assert 20_000 < figure.stat().st_size < 200_000
