from dataclasses import replace
from pathlib import Path

import pytest
from ase import Atoms

from benchmarks.adsorption_values import Value
from benchmarks.dft_sets import Key, Pair
from benchmarks.literature import LITERATURE
from benchmarks.validation import (
    score_against_teacher,
    score_gpaw,
    score_literature,
    score_same_pairs,
    score_xu_kitchin,
)

TABLE = "slab,final_site,status,dE_O_H2O_H2_eV\n"


def pair(collection: str, name: str, site: str, dft: float) -> Pair:
    return Pair(collection, name, site, Atoms(), Atoms(), name, dft)


def value(of: Pair, dE_eV: float | None, status: str = "converged") -> Value:
    return Value("sha", 200, *of.key, dE_eV, status, 2, 30, wall_s=4.0, cpu_s=2.0)


def by_key(*values: Value) -> dict[Key, Value]:
    return {value.key: value for value in values}


def test_alloys_are_relative_to_platinum() -> None:
    """Energies against Pt(111) put slabs left and right of the volcano's top."""
    names = ["Pt(111)", *(f"agpt-{i}" for i in range(12))]
    relative = [0.0, 0.0, 0.06, 0.1, 0.2, *(0.5 + 0.1 * i for i in range(8))]
    pairs = [
        pair("gpaw", name, "fcc", -4.0 + energy)
        for name, energy in zip(names, relative, strict=True)
    ]
    # the model has another zero, and takes the two weakest for the best
    told = [-6.0 + energy for energy in relative]
    told[-1], told[-2] = -6.0 + 0.05, -6.0 + 0.07
    values = by_key(*(value(p, e) for p, e in zip(pairs, told, strict=True)))
    scores = score_gpaw(pairs, values)
    moved = (1.2 - 0.05) + (1.1 - 0.07)
    assert scores["relative_to_Pt111"]["MAE_eV"] == pytest.approx(moved / 12)
    assert scores["top_recall"] == pytest.approx(0.8)  # of DFT's ten, two are gone
    assert scores["top_among_shortlist"] == 1.0  # there are twelve
    assert scores["top_recall_by_chance"] == pytest.approx(10 / 12)
    assert scores["agpt"]["n"] == 12
    assert scores["values"][0]["name"] == "Pt(111)"


def test_what_is_missing_and_what_went_wrong_is_counted() -> None:
    pairs = [pair("xu_kitchin", "Pt", site, 1.0) for site in "abcd"]
    values = by_key(
        value(pairs[0], 1.0),
        value(pairs[1], 2.0, "not_converged"),
        replace(value(pairs[2], None, "failed"), relaxations=None, cpu_s=None),
    )
    scores = score_xu_kitchin(pairs, values)
    assert scores["pairs"] == 4
    assert scores["not_covered"] == 1
    assert scores["not_converged"] == 1
    assert scores["failed"] == 1
    assert scores["all_sites"]["n"] == 2
    assert scores["steps_per_relaxation"] == 15.0
    assert scores["relaxations_per_cpu_s"] == pytest.approx(1.0)
    assert scores["relaxations_per_s"] == pytest.approx(0.5)


def test_order_of_sites_on_metals() -> None:
    dft = {"fcc": -3.0, "hcp": -2.0, "ontop": -1.0}
    pairs = [pair("xu_kitchin", m, s, e) for m in ("Pt", "Au") for s, e in dft.items()]
    told = [-3.0, -2.0, -1.0, -2.0, -3.0, -1.0]  # gold: fcc and hcp exchanged
    values = by_key(*(value(p, e) for p, e in zip(pairs, told, strict=True)))
    scores = score_xu_kitchin(pairs, values)
    assert scores["site_order_accuracy"] == pytest.approx(5 / 6)
    assert scores["best_site_right"] == pytest.approx(0.5)
    assert scores["fcc_of_metals"]["n"] == 2


def test_two_models_on_the_pairs_that_both_have() -> None:
    pairs = [pair("xu_kitchin", str(i), "fcc", 0.0) for i in range(5)]
    teacher = by_key(*(value(p, float(i)) for i, p in enumerate(pairs)))
    student = by_key(*(value(p, i + 0.1) for i, p in enumerate(pairs[:4])))
    student[pairs[0].key] = value(pairs[0], None, "failed")
    scores = score_same_pairs(pairs, teacher, student)
    assert scores["n"] == 3
    assert scores["MAE_eV"] == pytest.approx(0.1)
    assert scores["MAE_after_shift_eV"] == pytest.approx(0.0, abs=1e-12)
    assert "top_recall" not in scores
    assert score_same_pairs(pairs, {}, student) == {}


def test_best_alloys_of_the_teacher_are_counted() -> None:
    names = ["Pt(111)", *(f"ptru-{i}" for i in range(40))]
    pairs = [pair("gpaw", name, "fcc", 0.0) for name in names]
    # ever weaker than the optimum; the student has every other of the best ten last
    weaker = [0.0, *(0.1 + 0.01 * i for i in range(40))]
    told = [e + 1.0 if 0.1 <= e < 0.195 and i % 2 else e for i, e in enumerate(weaker)]
    teacher = by_key(*(value(p, e - 6.0) for p, e in zip(pairs, weaker, strict=True)))
    student = by_key(*(value(p, e - 5.0) for p, e in zip(pairs, told, strict=True)))
    scores = score_same_pairs(pairs, teacher, student)
    assert scores["top_recall"] == 0.5
    assert scores["top_among_shortlist"] == 0.5
    assert scores["top_recall_by_chance"] == 0.25
    assert scores["top_among_shortlist_by_chance"] == 0.5


def test_tables_are_compared_site_by_site(tmp_path: Path) -> None:
    teacher, student = tmp_path / "teacher.csv", tmp_path / "student.csv"
    rows = "Pt,fcc,converged,1.0\nPt,hcp,converged,1.4\nAu,fcc,converged,{}\n"
    rows += "Au,fcc,converged,7.0\n"  # another start, less well relaxed
    teacher.write_text(TABLE + rows.format(2.0) + "Ag,fcc,converged,3.0\n")
    student.write_text(TABLE + rows.format(2.3) + "Ag,fcc,desorbed,9.0\n")
    scores = score_against_teacher(teacher, student)
    assert scores["sites"]["n"] == 3
    assert scores["sites"]["MAE_eV"] == pytest.approx(0.1)
    assert scores["best_site_per_slab"]["MAE_eV"] == pytest.approx(0.15)
    assert scores["site_order_accuracy"] == 1.0
    assert scores["site_pairs"] == 1
    assert scores["sites_missing"] == 1


def test_metals_are_compared_with_what_was_published(tmp_path: Path) -> None:
    table = tmp_path / "sites.csv"
    energies = LITERATURE["Falsig"].energies_eV
    rows = [f"{m}(111),fcc,converged,{e - 0.1}\n" for m, e in energies.items()]
    rows += [f"{m}(111),hcp,converged,{e + 0.5}\n" for m, e in energies.items()]
    table.write_text(TABLE + "".join(rows) + "Pt3Cu(111),fcc,converged,1.3\n")
    scores = score_literature(table)
    assert scores["Falsig"]["n"] == 6
    assert scores["Falsig"]["MAE_eV"] == pytest.approx(0.1)
    assert scores["Falsig"]["MAE_after_shift_eV"] == pytest.approx(0.0, abs=1e-12)
    assert scores["Pt111_eV"] == pytest.approx(1.52)
    # against an O atom: another zero, so only what is left after a shift is told
    assert "MAE_eV" not in scores["Xu-Kitchin"]
    assert scores["Xu-Kitchin"]["n"] == 6  # no iridium in the table
    assert 0.05 < scores["Xu-Kitchin"]["MAE_after_shift_eV"] < 0.5
