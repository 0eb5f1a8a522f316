"""Held-out combinations of elements, and groups."""

import pytest
from ase import Atoms

from crack_md.data.splits import is_held_out, parse_combinations, split_of
from crack_md.errors import ConfigError

PAIRS = (("Ag", "Pd"), ("Cu", "Ir"))


@pytest.mark.parametrize(
    ("formula", "held_out"),
    [
        ("AgPd", True),
        ("Ag11PdO", True),
        ("PtPd3Ag", True),
        ("Ag4", False),
        ("PdPt3", False),
        ("AgIr", False),
        ("CuIrAg", True),
    ],
)
def test_a_pair_is_held_out_in_every_stoichiometry_and_superset(formula, held_out):
    atoms = Atoms(formula)

    assert is_held_out(atoms, PAIRS) is held_out
    expected = "test" if held_out else "train"
    assert split_of(atoms, "g", held_out=PAIRS, val=0.0) == expected


def test_shares_come_out_as_asked_and_groups_stay_together():
    atoms = Atoms("Pt")
    groups = [f"group-{i}" for i in range(4000)]

    splits = [split_of(atoms, g, val=0.05, test=0.1, seed=1) for g in groups]

    # three standard deviations of a binomial draw
    assert splits.count("val") == pytest.approx(200, abs=42)
    assert splits.count("test") == pytest.approx(400, abs=57)
    assert splits == [split_of(atoms, g, val=0.05, test=0.1, seed=1) for g in groups]
    assert splits != [split_of(atoms, g, val=0.05, test=0.1, seed=2) for g in groups]


def test_more_test_groups_move_no_group_out_of_validation():
    groups = [f"group-{i}" for i in range(500)]

    def validation(test):
        return {g for g in groups if split_of(Atoms("Pt"), g, test=test) == "val"}

    assert validation(0.0) == validation(0.3) != set()


@pytest.mark.parametrize(
    ("formula", "held_out"),
    [("NiPtCu", True), ("Ni2Pt9CuOH", True), ("Pt3Ni", False), ("CuPtAg", False)],
)
def test_a_ternary_is_held_out_where_all_three_occur(formula, held_out):
    combinations = parse_combinations("Co-Pd,Ni-Pt-Cu", at_least=2)

    assert combinations == (("Co", "Pd"), ("Ni", "Pt", "Cu"))
    assert is_held_out(Atoms(formula), combinations) is held_out


def test_combinations_are_read_from_text():
    assert parse_combinations("Ag-Pd, Cu-Ir", at_least=2) == PAIRS
    assert parse_combinations("Ni,Co-O") == (("Ni",), ("Co", "O"))
    assert parse_combinations("") == ()


@pytest.mark.parametrize("text", ["Ag-Zz", "Ag/Pd", "Ag-"])
def test_words_that_name_no_elements_are_refused(text):
    with pytest.raises(ConfigError, match="is no element or combination"):
        parse_combinations(text)


@pytest.mark.parametrize("text", ["Ag", "Ag-Ag", "Ag-Pd,Cu"])
def test_one_element_cannot_be_held_out(text):
    with pytest.raises(ConfigError, match="no combination of 2 or more different"):
        parse_combinations(text, at_least=2)


def test_shares_above_one_are_refused():
    with pytest.raises(ConfigError, match="sum to less than 1"):
        split_of(Atoms("Pt"), "g", val=0.6, test=0.6)
