"""Tables fit the terminal: columns go, names stay whole."""

import io

from rich.console import Console

from crack_md.cli.common import Heading, build_table, explain_left_out

HEADINGS = [
    Heading("slab", is_text=True),
    Heading("ΔE(O*) / eV", drop=1),
    Heading("U_L / V"),
    Heading("vs Pt(111) / eV", drop=2),
]
ROWS = [
    ["Pt3Cu(111) Pt skin", "1.52", "0.78", "0.00"],
    ["Pd(111)", "1.28", "0.66", "-"],
]


def shown(width: int) -> tuple[list[str], list[str]]:
    text = io.StringIO()
    table, left_out = build_table(HEADINGS, ROWS, width=width)
    Console(file=text, width=width).print(table)
    return [line.rstrip() for line in text.getvalue().splitlines()], left_out


def test_everything_is_shown_where_there_is_room() -> None:
    lines, left_out = shown(57)  # 18 + 11 + 7 + 15 and three gaps of 2
    assert left_out == []
    assert lines[0] == "slab                ΔE(O*) / eV  U_L / V  vs Pt(111) / eV"
    assert lines[1] == "Pt3Cu(111) Pt skin         1.52     0.78             0.00"


def test_columns_go_by_their_number_and_names_stay_whole() -> None:
    lines, left_out = shown(56)
    assert left_out == ["vs Pt(111) / eV"]
    assert lines[1] == "Pt3Cu(111) Pt skin         1.52     0.78"
    lines, left_out = shown(39)
    assert left_out == ["ΔE(O*) / eV", "vs Pt(111) / eV"]
    assert lines[1] == "Pt3Cu(111) Pt skin     0.78"
    told = explain_left_out(left_out, "results.csv")
    assert str(told) == "no room for ΔE(O*) / eV, vs Pt(111) / eV: see results.csv"
    assert explain_left_out([], "results.csv") is None


def test_names_fold_only_where_nothing_else_helps() -> None:
    lines, left_out = shown(20)
    assert left_out == ["ΔE(O*) / eV", "vs Pt(111) / eV"]
    assert all(len(line) <= 20 for line in lines)
    assert len(lines) > 3


def test_titles_of_two_lines_are_as_wide_as_the_longer() -> None:
    headings = [Heading("slab", is_text=True), Heading("mean E\nmeV/atom", drop=1)]
    rows = [["Pt(111)", "1.5"]]
    _, left_out = build_table(headings, rows, width=17)  # 7 + 2 + 8
    assert left_out == []
    _, left_out = build_table(headings, rows, width=16)
    assert left_out == ["mean E meV/atom"]
