"""Tables of made-up results, number by number."""

import json
from pathlib import Path
from typing import Any

import pytest

from crack_md.study.plan import Plan
from crack_md.study.summary import (
    Difference,
    Spread,
    compare_spreads,
    number,
    summarize_study,
)
from crack_md.study.tables import markdown, rows_csv, write_tables
from tests.study.study_factory import plan_of

DATA = Path("small.aselmdb")


def metrics(force: float, energy: float, cosine: float | None) -> dict[str, Any]:
    return {
        "n_frames": 7,
        "energy_mae_meV": 4 * energy,
        "energy_mae_meV_per_atom": energy,
        "mean_energy_baseline_meV": 1200.0,
        "mean_energy_baseline_meV_per_atom": 300.0,
        "force_mae_meV_per_A": force,
        "zero_force_baseline_meV_per_A": 500.0,
        "efwt_percent": 0.0,
        "embedding_mae": cosine,
        "embedding_cosine": cosine,
    }


def result(
    force: float, energy: float, cosine: float | None = None, *, step_ms: float = 10.0
) -> dict[str, Any]:
    return {
        "n_weights": 12_345,
        "steps": 3,
        "step_ms": step_ms,
        "wall_s": 1.0,
        "losses": {"loss": 1.0},
        "labels": {
            "all": metrics(force, energy, cosine),
            "relaxed": metrics(force / 2, energy, cosine),
            "unrelaxed": metrics(force * 2, energy, cosine),
        },
        "teacher": None,
    }


def made_up(folder: Path, results: dict[tuple[str, int], Any], **changes: Any) -> Plan:
    """Return a plan whose run folders hold these results and errors."""
    plan = plan_of(DATA, folder, **changes)
    for run in plan.students:
        content = results.get((run.method, run.seed))
        if content is None:
            continue
        run.folder.mkdir(parents=True)
        if isinstance(content, str):
            run.error_file.write_text(json.dumps({"error": content}))
        else:
            content |= {"evaluate": run.evaluate.model_dump(mode="json")}
            run.result_file.write_text(json.dumps(content))
    return plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    results = {
        ("vanilla", 1): result(100.0, 10.0, step_ms=10.0),
        ("vanilla", 2): result(104.0, 12.0, step_ms=10.0),
        ("crack+task", 1): result(90.0, 11.0, 0.9, step_ms=15.0),
        ("crack+task", 2): result(96.0, 13.0, 0.8, step_ms=15.0),
    }
    return made_up(tmp_path, results)


def test_spread_is_that_of_a_sample() -> None:
    assert Spread({1: 1.0, 2: 3.0}).mean == 2.0
    assert Spread({1: 1.0, 2: 3.0}).std == pytest.approx(2**0.5)
    assert Spread({1: 1.0}).std is None


def test_numbers_lie_at_dotted_places() -> None:
    assert number({"a": {"b": 2}}, "a.b") == 2.0
    assert number({"a": None}, "a.b") is None
    assert number({}, "a") is None


def test_every_cell_of_the_main_table(plan: Plan) -> None:
    table = markdown(summarize_study(plan))
    assert (
        "| method | runs | parameters | emb. MAE | emb. cos | E / meV | E / meV/atom "
        "| F / meV/Å | ms/step |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| *zero forces, mean energy* |  | – | – | – | 1,200 | 300.00 | 500.0 | – |\n"
        "| vanilla | 2/2 | 12,345 | – | – | **44** ± 6 | **11.00** ± 1.41 "
        "| **102.0** ± 2.8 | 10 (1.00×) |\n"
        # 1 meV/atom more in both seeds: no tie; 10 and 8 meV/Å less in two: a tie
        "| crack+task | 2/2 | 12,345 | 0.850 ± 0.071 | 0.850 ± 0.071 | 48 ± 6 "
        "| 12.00 ± 1.41 | **93.0** ± 4.2 | 15 (1.50×) |\n"
    ) in table


def test_relaxed_and_unrelaxed_frames_stand_apart(plan: Plan) -> None:
    table = markdown(summarize_study(plan))
    assert (
        "| crack+task | 2/2 | 12.00 ± 1.41 | **186.0** ± 8.5 | 12.00 ± 1.41 "
        "| **46.5** ± 2.1 |\n"
    ) in table


def test_frames_that_are_all_unrelaxed_are_shown_once(tmp_path: Path) -> None:
    results = {
        ("vanilla", 1): result(100.0, 10.0),
        ("crack+task", 1): result(90.0, 9.0),
    }
    for one in results.values():
        del one["labels"]["relaxed"]
    table = markdown(summarize_study(made_up(tmp_path, results)))
    assert "small.aselmdb, split all, none of them relaxed; mean ±" in table
    assert "unrelaxed / " not in table


def test_differences_are_taken_seed_by_seed(plan: Plan) -> None:
    summary = summarize_study(plan)
    row = summary.rows[1]
    forces = summary.minus_reference(row, "force_mae_meV_per_A")
    # 90 - 100 and 96 - 104: an error of 1 where each method alone has 2 and 3;
    # t of one degree of freedom is tan(0.475 pi)
    assert forces == Difference(-9.0, pytest.approx(12.7062, abs=1e-4), paired=True)
    assert forces is not None
    assert forces.is_tie
    assert summary.minus_reference(summary.rows[0], "force_mae_meV_per_A") is None
    assert summary.minus_reference(row, "embedding_unexplained") is None
    assert (
        "| crack+task | +1.00 ± 0.00 | -9.0 ± 12.7 (tie) | -18.0 ± 25.4 (tie) |\n"
    ) in markdown(summary)


def test_methods_without_common_seeds_are_compared_by_welch() -> None:
    # equal variances of 2 over two seeds each: error sqrt(2), two degrees of freedom
    found = compare_spreads(Spread({1: 10.0, 2: 12.0}), Spread({3: 0.0, 4: 2.0}))
    assert found == Difference(
        10.0, pytest.approx(4.302653 * 2**0.5, abs=1e-5), paired=False
    )
    assert not found.is_tie
    same = compare_spreads(Spread({1: 3.0, 2: 3.0}), Spread({3: 1.0, 4: 1.0}))
    assert same == Difference(2.0, 0.0, paired=False)


def test_only_common_seeds_are_compared(tmp_path: Path) -> None:
    results = {
        ("vanilla", 1): result(100.0, 10.0),
        ("crack+task", 1): result(90.0, 11.0),
        ("crack+task", 2): result(10.0, 1.0),
    }
    summary = summarize_study(made_up(tmp_path, results))
    forces = summary.minus_reference(summary.rows[1], "force_mae_meV_per_A")
    assert forces == Difference(-10.0, None, paired=True)


def test_one_seed_has_no_winner(tmp_path: Path) -> None:
    results = {
        ("vanilla", 1): result(100.0, 10.0),
        ("crack+task", 1): result(90.0, 9.0),
    }
    table = markdown(summarize_study(made_up(tmp_path, results)))
    assert "**" not in table
    assert "| crack+task | -1.00 | -10.0 | -20.0 |\n" in table


def test_failures_are_rows_with_a_reason(tmp_path: Path) -> None:
    results = {("vanilla", 1): result(100.0, 10.0), ("crack+task", 1): "no features"}
    plan = made_up(tmp_path, results)
    table = markdown(summarize_study(plan))
    assert "| crack+task | 0/2 | – | – | – | – | – |\n" in table
    assert "| vanilla | 1/2 | 12,345 | 40 | 10.00 | 100.0 | 10 (1.00×) |\n" in table
    assert "- crack+task, seed 1 failed: no features\n" in table


def test_the_largest_budget_leads(tmp_path: Path) -> None:
    plan = plan_of(DATA, tmp_path, budgets=[{"max_steps": 3}, {"max_steps": 9}])
    table = markdown(summarize_study(plan))
    assert table.index("### 9 steps") < table.index("### 3 steps")


def test_files_say_the_same(plan: Plan) -> None:
    summary = write_tables(plan)
    folder = plan.study.folder
    assert (folder / "table.md").read_text() == markdown(summary)
    assert (folder / "table.csv").read_text() == rows_csv(summary)
    told = json.loads((folder / "summary.json").read_text())
    forces = told["rows"][1]["columns"]["force_mae_meV_per_A"]
    assert forces == {"mean": 93.0, "std": 18**0.5, "seeds": {"1": 90.0, "2": 96.0}}
    difference = told["rows"][1]["minus_reference"]["force_mae_meV_per_A"]
    assert difference["mean"] == -9.0
    assert (folder / "runs.csv").read_text().count("\n") == 5


def test_a_result_of_other_frames_does_not_count(plan: Plan, tmp_path: Path) -> None:
    other = {"path": str(DATA), "split": "test"}
    changed = plan_of(DATA, tmp_path, evaluate=other)
    assert [row.n_done for row in summarize_study(changed).rows] == [0, 0]
