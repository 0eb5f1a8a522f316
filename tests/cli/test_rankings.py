"""Tables on the terminal: what stays where room is short."""

from crack_md.cli.rankings import _screening_table
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
