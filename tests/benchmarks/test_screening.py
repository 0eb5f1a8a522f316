from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT

from benchmarks import dft_sets
from benchmarks.screening import agreement, score_against_teacher, score_xu_kitchin

has_references = pytest.mark.skipif(
    not dft_sets.references().is_dir(),
    reason="no reference data: set CRACK_MD_REFERENCES",
)
TABLE = "slab,final_site,status,dE_O_H2O_H2_eV\n"


def test_agreement_of_shifted_energies() -> None:
    reference = np.array([0.0, 1.0, 2.0, 4.0])
    scores = agreement(reference, reference + np.array([0.5, 0.5, 0.5, 0.9]))
    assert scores["n"] == 4
    assert scores["MAE_eV"] == pytest.approx(0.6)
    assert scores["shift_eV"] == pytest.approx(0.5)
    assert scores["MAE_after_shift_eV"] == pytest.approx(0.1)
    assert scores["max_error_eV"] == pytest.approx(0.9)
    assert scores["spearman"] == pytest.approx(1.0)


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
    assert scores["sites_missing"] == 1


@has_references
def test_sets_are_what_was_published() -> None:
    pairs = dft_sets.gpaw_pairs()
    assert len(pairs) == 1 + 401 + 312 + 201
    assert pairs[0].name == "Pt(111)"
    assert pairs[0].dft == pytest.approx(-4.199, abs=1e-3)
    assert dft_sets.sample(pairs, limit=5, seed=1)[0] is pairs[0]
    pure = {(p.name, p.site): p.dft for p in dft_sets.xu_kitchin_pairs()}
    assert len(pure) == 28
    assert pure["Pt", "fcc"] == pytest.approx(-4.264, abs=1e-3)


@has_references
def test_scores_any_calculator_on_pure_metals() -> None:
    known = frozenset(["Pt", "Cu", "Ag", "O"])
    scores = score_xu_kitchin(EMT(), known=known, steps=0)
    assert scores["all_sites"]["n"] == 12
    assert 0.0 <= scores["site_order_accuracy"] <= 1.0
