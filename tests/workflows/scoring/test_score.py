"""CatBench's definitions on closed-form runs, then on EMT."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from crack_md.api.inputs import describe_calculator
from crack_md.api.scoring import score
from crack_md.errors import DataError
from crack_md.workflows.scoring.reactions import (
    Reaction,
    read_reactions,
    write_reactions,
)
from crack_md.workflows.scoring.score import (
    ReactionOutcome,
    Run,
    Scorer,
    classify,
    farthest,
    largest_bond_change,
    median_run,
    score_outcomes,
)

GOOD = Run(1.0, -10.0, -12.0, True, 0.2, 0.05)


@pytest.mark.parametrize(
    ("runs", "category"),
    [
        ([GOOD] * 3, "normal"),
        ([GOOD, replace(GOOD, dE_eV=1.21), GOOD], "reproduction_failure"),
        ([GOOD, replace(GOOD, dE_eV=1.19), GOOD], "normal"),
        ([GOOD, replace(GOOD, clean_eV=-10.3), GOOD], "reproduction_failure"),
        ([GOOD, replace(GOOD, covered_eV=-12.3), GOOD], "reproduction_failure"),
        ([GOOD, GOOD, replace(GOOD, at_rest=False)], "unphysical_relaxation"),
        ([replace(GOOD, moved_A=0.51)] * 3, "unphysical_relaxation"),
        ([replace(GOOD, moved_A=0.49)] * 3, "normal"),
        ([replace(GOOD, bond_change=0.21)] * 3, "adsorbate_migration"),
        ([replace(GOOD, moved_A=0.6, bond_change=0.3)] * 3, "unphysical_relaxation"),
        ([replace(GOOD, dE_eV=3.1)] * 3, "energy_anomaly"),
        ([replace(GOOD, dE_eV=3.1, bond_change=0.3)] * 3, "adsorbate_migration"),
        ([replace(GOOD, clean_eV=None)] * 2, "normal"),
    ],
)
def test_the_worst_category_that_is_true(runs: list[Run], category: str) -> None:
    assert classify(runs, 1.0) == category


def test_the_median_of_an_even_number_is_the_lower_one() -> None:
    runs = [replace(GOOD, dE_eV=energy) for energy in (4.0, 1.0, 3.0, 2.0)]
    assert median_run(runs).dE_eV == 2.0
    assert median_run(runs[:3]).dE_eV == 3.0


def test_distances_go_over_the_nearest_images() -> None:
    before = Atoms("PtO", [[0.1, 0, 0], [0.1, 0, 2.0]], cell=[4, 4, 20], pbc=True)
    after = before.copy()
    after.positions[0, 0] = 3.9  # 0.2 Å back over the boundary
    assert farthest(before[:1], after[:1]) == pytest.approx(0.2)
    after = before.copy()
    after.positions[1, 2] = 2.5
    assert largest_bond_change(before, after, [1]) == pytest.approx(0.25)
    assert largest_bond_change(before, after, []) == 0.0
    far = before.copy()
    far.positions[1, 2] = 6.5
    farther = far.copy()
    farther.positions[1, 2] = 9.0  # never within 6 Å
    assert largest_bond_change(far, farther, [1]) == 0.0


def outcome(
    error: float, category: str = "normal", adsorbate: str = "O"
) -> ReactionOutcome:
    return ReactionOutcome("x", adsorbate, 1.0, 1.0 + error, category)


def test_means_are_over_what_they_say() -> None:
    outcomes = [
        outcome(0.1),
        outcome(-0.3),
        outcome(1.0, "adsorbate_migration"),
        outcome(2.6, "energy_anomaly"),
        ReactionOutcome("y", "O", 1.0, None, "failed"),
    ]
    found = score_outcomes(outcomes)
    assert (found.n_valid, found.n_total) == (4, 5)
    assert found.mae_total_eV == pytest.approx(1.0)
    assert found.mae_normal_eV == pytest.approx(0.2)
    assert found.normal_rate == 0.5
    assert found.shifts_eV == {}  # three are too few
    assert found.line == (
        "4/5 valid, total MAE 1.000 eV, normal MAE 0.200 eV, normal rate 50.0 %"
    )


def test_a_shift_turns_anomalies_of_the_reference_into_normal_ones() -> None:
    errors = [2.4, 2.5, 2.5, 2.6, 2.3]
    outcomes = [outcome(e, "energy_anomaly") for e in errors]
    outcomes += [outcome(4.0, "unphysical_relaxation"), outcome(0.3, adsorbate="H")]
    found = score_outcomes(outcomes)
    assert found.shifts_eV == {"O": 2.5}
    assert found.normal_rate == pytest.approx(1 / 7)
    assert found.normal_rate_shifted == pytest.approx(6 / 7)
    shifted = [0.1, 0.0, 0.0, 0.1, 0.2, 1.5, 0.3]
    assert found.mae_total_shifted_eV == pytest.approx(np.mean(shifted))
    normal = [*shifted[:5], 0.3]
    assert found.mae_normal_shifted_eV == pytest.approx(np.mean(normal))


def test_nothing_valid_has_no_means() -> None:
    found = score_outcomes([ReactionOutcome("y", "O", 1.0, None, "failed")])
    assert found.mae_total_eV is None
    assert "0/1 valid, total MAE -" in found.line


def reaction(symbol: str = "Cu", dft_eV: float = 0.0) -> Reaction:
    slab = fcc111(symbol, (1, 1, 3), vacuum=6.0, periodic=True)
    slab.set_constraint(FixAtoms([0, 1]))
    covered = slab.copy()
    add_adsorbate(covered, "O", 1.3, "fcc")
    gases = {gas: molecule(gas, vacuum=4.0, pbc=True) for gas in ("H2O", "H2")}
    counts = {"clean": -1.0, "covered": 1.0, "H2O": -1.0, "H2": 1.0}
    return Reaction("Cu-O", "O", slab, covered, (3,), gases, counts, dft_eV)


def test_energies_are_those_of_the_reaction(tmp_path: Path) -> None:
    scorer = Scorer(EMT(), describe_calculator(EMT()), repeats=1)
    free = scorer.outcome(reaction())
    assert free.dE_eV is not None
    gases = {"H2O": 1.0, "H2": 3.5}
    told = describe_calculator(EMT(), gas_energies=gases)
    named = Scorer(EMT(), told, repeats=1).outcome(reaction())
    assert named.dE_eV is not None
    relaxed = {gas: scorer._gas(gas, a, 0) for gas, a in reaction().gases.items()}
    expected = (relaxed["H2"] - 3.5) - (relaxed["H2O"] - 1.0)
    assert free.dE_eV - named.dE_eV == pytest.approx(expected)


def test_the_lattice_holds_and_unknown_elements_are_no_result() -> None:
    scorer = Scorer(EMT(), describe_calculator(EMT()), repeats=2)
    known = scorer.outcome(reaction(dft_eV=-50.0))
    assert known.category == "energy_anomaly"
    assert known.spread_eV == 0.0
    unknown = scorer.outcome(reaction("Rh"))
    assert unknown.category == "unknown_element"
    assert not unknown.is_valid


def test_an_adsorption_energy_model_is_asked_about_the_covered_slab() -> None:
    model = replace(describe_calculator(EMT()), energy_reference="adsorption")
    scorer = Scorer(EMT(), model, repeats=1)
    done = scorer.outcome(reaction())
    relaxed = scorer._relax(reaction().covered, 0)
    assert done.dE_eV == relaxed.energy


def test_files_of_both_ages_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x_adsorption.json"
    write_reactions({"Cu-O": reaction(dft_eV=0.5)}, path)
    told = json.loads(path.read_text())
    shared = {}
    for number, part in enumerate(told["Cu-O"]["raw"].values()):
        shared[str(number)] = part.pop("atoms_json")
        part["ref"] = str(number)
    newer = tmp_path / "newer.json"
    broken = {"raw": {"star": {"ref": "0", "stoi": -1}}}
    newer.write_text(json.dumps({"_structures": shared, **told, "broken": broken}))
    for file, failures in ((path, []), (newer, ["broken"])):
        (read,), failed = read_reactions(file)
        assert list(failed) == failures
        assert read.adsorbate == "O"
        assert read.dft_eV == 0.5
        assert read.adsorbed == (3,)
        assert dict(read.stoichiometry) == dict(reaction().stoichiometry)
        assert read.covered.positions == pytest.approx(reaction().covered.positions)
        assert list(read.covered.constraints[0].get_indices()) == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "holds no adsorption reactions"),
        ('{"a": {"raw": {}}}', "holds no adsorption reactions"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_reactions(tmp_path / "x.json")
    with pytest.raises(DataError, match="no such file"):
        read_reactions(tmp_path / "y.json")


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    path, out = tmp_path / "x.json", tmp_path / "out"
    pair = {"a": reaction(), "b": replace(reaction(), dft_eV=1.0)}
    write_reactions(pair, path)
    events = []
    first = score(path, EMT(), out=out, repeats=1, report=events.append)
    assert [event.reused for event in events] == [False, False]
    again = score(path, EMT(), out=out, repeats=1, report=events.append)
    assert [event.reused for event in events[2:]] == [True, True]
    assert again.score == first.score
    assert first.rows[0]["dE_eV"] == first.rows[1]["dE_eV"]
    assert first.rows[0]["error_eV"] == pytest.approx(first.rows[1]["error_eV"] + 1.0)
    assert (out / "scores.csv").read_text().startswith("reaction,adsorbate,category")
    with pytest.raises(DataError, match="other settings: repeats 1"):
        score(path, EMT(), out=out, repeats=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ref_ads_eng": float("nan")}, "must be finite"),
        ({"adsorbate_indices": []}, "name no atoms of 4"),
        ({"adsorbate_indices": [-1]}, "name no atoms of 4"),
        ({"adsorbate_indices": [4]}, "name no atoms of 4"),
    ],
)
def test_numbers_that_would_spoil_a_score_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    write_reactions({"Cu-O": reaction()}, tmp_path / "one.json")
    told = json.loads((tmp_path / "one.json").read_text())
    told["Cu-O"] |= change
    (tmp_path / "one.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=message):
        read_reactions(tmp_path / "one.json")


def test_a_part_of_unknown_kind_is_not_left_out_of_the_sum(tmp_path: Path) -> None:
    write_reactions({"Cu-O": reaction()}, tmp_path / "one.json")
    told = json.loads((tmp_path / "one.json").read_text())
    told["Cu-O"]["raw"]["H2O"] = told["Cu-O"]["raw"].pop("H2Ogas")
    (tmp_path / "one.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match="H2O: neither"):
        read_reactions(tmp_path / "one.json")
