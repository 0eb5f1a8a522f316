"""Tables on the terminal: what stays where room is short."""

from crack_md.cli.rankings import _numbers, _screening_table, _shared
from crack_md.workflows.ranking.results import RankedSlab
from crack_md.workflows.screening.reader import coverage_columns

ROW = {
    "rank": 1,
    "slab": "Pt3Ni(111) Pt skin",
    "final_site": "fcc-Pt3",
    "dE_O_H2O_H2_eV": 1.76,
    "dE_O_vs_Pt111_eV": 0.21,
    "dG_O_eV": 1.81,
    "dG_OH_eV": 0.71,
    "U_L_V": 0.71,
    "U_L_by_model_V": 0.1,
    "formation_eV_per_atom": -0.07,
    "segregation_element": "Ni",
    "segregation_eV": 0.63,
    "segregation_with_O_eV": 0.09,
    "dissolution_element": "Pt",
    "dissolution_V": 0.95,
}


def test_stability_that_was_asked_for_stays_and_energies_go() -> None:
    settings = {"adsorbates": ["O", "OH"], "stability": "tabulated"}
    _, left_out = _screening_table([ROW], settings, "H2O-H2", 80)
    assert "ΔG(O*) / eV" in left_out
    assert not {"up (with O*) / eV", "dissolves / V"} & set(left_out)


def test_free_energy_of_the_first_adsorbate_stays_without_stability() -> None:
    _, left_out = _screening_table([ROW], {"adsorbates": ["O", "OH"]}, "H2O-H2", 60)
    assert left_out
    assert "ΔG(O*) / eV" not in left_out


def test_columns_of_coverages_outlast_what_was_not_asked_for() -> None:
    names = coverage_columns(0.5)
    row = ROW | {names.mean: 0.1, names.lateral: 0.07}
    settings = {"adsorbates": ["O"], "coverages_ML": [0.5]}
    table, left_out = _screening_table([row], settings, "H2O-H2", 110)
    titles = [str(column.header) for column in table.columns]
    assert {"ΔE at 0.5 ML / eV", "pair at 0.5 ML / eV"} <= set(titles)
    assert "vs Pt(111) / eV" in left_out


def test_intervals_with_negative_ends_can_be_read() -> None:
    slab = RankedSlab(1, 1, "Cu", "Cu16", (), -0.5, -0.81, -0.18, 0.0, 0.0, 1, 2)
    assert _numbers(slab) == ("-0.50", "-0.81 to -0.18", "0.00", "0.00", "1–2")


def test_notes_that_differ_in_a_number_are_one_line_with_all_slabs() -> None:
    text = "U_L is {} V by O, OH as computed, and {} V by O and scaling"
    rows = [
        {"slab": f"s{n}", "warnings": text.format(-0.1 * n, 0.3) + "; thin"}
        for n in (1, 2)
    ]
    alone = [{"slab": "s3", "warnings": "adsorbates are 2.8 Å apart"}]
    assert _shared(rows + alone, "warnings") == [
        "U_L is … V by O, OH as computed, and … V by O and scaling (s1, s2)",
        "thin (s1, s2)",
        "adsorbates are 2.8 Å apart (s3)",
    ]
    many = [{"slab": f"s{n}", "warnings": "thin"} for n in range(10)]
    (line,) = _shared(many, "warnings")
    assert line == "thin (s0, s1, s2, s3, s4, s5, s6, s7 and 2 more)"
