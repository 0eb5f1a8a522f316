import json
from pathlib import Path

import pytest

from benchmarks import dft_sets, screening

has_references = pytest.mark.skipif(
    not dft_sets.references().is_dir(),
    reason="no reference data: set CRACK_MD_REFERENCES",
)
# spelled otherwise than the default, the same file
TABLE = (
    screening.HERE / ".." / "benchmarks/reference" / f"{screening.TEACHER}-sites.csv"
)


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
def test_scores_any_calculator_and_then_what_it_has_said(tmp_path: Path) -> None:
    scores = []
    model = ["--model", "emt", "--out", str(tmp_path), "--steps", "0"]
    stored = ["--model", "gone", "--values", str(tmp_path / "values.csv")]
    for options in (model, stored):
        path = tmp_path / "scores.json"
        table = ["--table", str(TABLE), "--json", str(path)]
        screening.main(["score", *table, "--limit", "9", *options])
        scores.append(json.loads(path.read_text()))
    # of seven metals EMT knows Pt, Ag, Au, Pd and Cu
    assert scores[0]["xu_kitchin"]["all_sites"]["n"] == 20
    assert scores[0]["xu_kitchin"]["not_covered"] == 8
    assert scores[0]["xu_kitchin"]["site_pairs"] == 30
    # all models are asked about the same alloys; of their elements EMT knows Ag and Pt
    drawn = dft_sets.sample(dft_sets.gpaw_pairs(), limit=9, seed=0)
    others = [pair for pair in drawn if pair.name.startswith(("irpd", "ptru"))]
    assert scores[0]["gpaw"]["pairs"] == 10
    assert scores[0]["gpaw"]["not_covered"] == len(others) > 0
    assert "teacher" not in scores[0]  # it was the teacher's own table
    for part in ("gpaw", "xu_kitchin", "literature"):
        assert scores[0][part] == scores[1][part]


def test_without_references_the_rest_is_scored(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CRACK_MD_REFERENCES", str(tmp_path))
    path = tmp_path / "scores.json"
    screening.main(["score", "--table", str(TABLE), "--json", str(path)])
    assert "left out" in capsys.readouterr().out
    scores = json.loads(path.read_text())
    assert "gpaw" not in scores
    assert scores["literature"]["Falsig"]["spearman"] == pytest.approx(1.0)
