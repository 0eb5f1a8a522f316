"""Stability in the report: columns of the table, and red rims in the volcano.

Columns of coverages as well.
"""

import json
from pathlib import Path

from crack_md.plots.screening.report import build_page
from crack_md.plots.screening.slab_table import table_columns
from crack_md.plots.screening.view import ReportView
from crack_md.plots.screening.volcano import volcano_svg
from crack_md.workflows.screening.reader import (
    coverage_columns,
    read_rows,
    read_screening,
)
from tests.workflows.ranking.screenings import write_csv, write_screening

NICKEL = {
    "formation_eV_per_atom": -0.061,
    "segregation_element": "Pt",
    "segregation_eV": -0.4,
    "segregation_with_O_eV": 0.21,
    "segregation_reversed": "Pt",
    "dissolution_element": "Ni",
    "dissolution_V": 0.2,
}
PLATINUM = {"dissolution_element": "Pt", "dissolution_V": 1.73}


def stable_view(folder: Path) -> ReportView:
    """Return a screening in which nickel leaves its slab at 0.2 V."""
    write_screening(folder)
    added = {"Pt3Ni(111)": NICKEL, "Pt(111)": PLATINUM}
    rows = [
        {**row, **dict.fromkeys(NICKEL, ""), **added.get(row["slab"], {})}
        for row in read_rows(folder / "results.csv")
    ]
    write_csv(folder / "results.csv", rows)
    return ReportView.of(read_screening(folder))


def test_columns_of_the_table(tmp_path: Path) -> None:
    view = stable_view(tmp_path)
    columns = {column.title: column for column in table_columns(view)}
    slabs = {slab.name: slab for slab in view.slabs}
    nickel, platinum = slabs["Pt3Ni(111)"], slabs["Pt(111)"]
    assert columns["E_f"].text(nickel) == "−0.06"
    assert columns["up (O*)"].text(nickel) == "Pt −0.40 (0.21); turns Pt"
    assert columns["dissolves"].text(nickel) == "Ni 0.20 < U_L"
    assert columns["dissolves"].text(platinum) == "Pt 1.73"
    assert columns["up (O*)"].text(platinum) == "–"


def test_rims_are_red_where_it_dissolves(tmp_path: Path) -> None:
    view = stable_view(tmp_path)
    marks = [
        part
        for part in volcano_svg(view, view.screening.volcano).iter()
        if "point" in part.get("class", "").split()
    ]
    names = {slab.index: slab.name for slab in view.slabs}
    rimmed = [
        names[int(part.get("data-slab", ""))]
        for part in marks
        if "dissolves" in part.get("class", "").split()
    ]
    assert rimmed == ["Pt3Ni(111)"]
    assert "Red rims" in build_page(view)


def test_without_stability_nothing_is_said(tmp_path: Path) -> None:
    view = ReportView.of(read_screening(write_screening(tmp_path)))
    titles = [column.title for column in table_columns(view)]
    assert not {"E_f", "up (O*)", "dissolves"} & set(titles)
    assert "Red rims" not in build_page(view)
    assert "water none (screened by an earlier version)" in build_page(view)


def test_columns_of_coverages(tmp_path: Path) -> None:
    write_screening(tmp_path)
    names = coverage_columns(0.5)
    values = dict.fromkeys(names, "") | {names.mean: -0.123, names.lateral: 0.071}
    note = {"coverage_notes": "0.75 ML: the cell holds less"}
    write_csv(
        tmp_path / "results.csv",
        [row | values | note for row in read_rows(tmp_path / "results.csv")],
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary["settings"]["coverages_ML"] = [0.5]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    view = ReportView.of(read_screening(tmp_path))
    columns = {column.title: column for column in table_columns(view)}
    assert columns["ΔE(O*) at 0.5 ML"].text(view.slabs[0]) == "−0.12"
    assert columns["pair at 0.5 ML"].text(view.slabs[0]) == "0.07"
    assert "further O* at 0.5 ML" not in columns  # it has no value anywhere
    assert "0.75 ML: the cell holds less" in build_page(view)
