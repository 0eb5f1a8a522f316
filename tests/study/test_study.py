"""A study that runs: results, failures, interruptions, repetition."""

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import torch

from crack_md.errors import ConfigError
from crack_md.files import read_json
from crack_md.models.checkpoint import load_model
from crack_md.study.perform import DataCache
from crack_md.study.plan import Plan
from crack_md.study.study import run_study
from crack_md.study.summary import summarize_study
from crack_md.study.tables import write_tables
from crack_md.training.evaluation import evaluate
from crack_md.training.loop.build import build_frames
from crack_md.training.loop.train import train
from tests.study.study_factory import CRACK, plan_of, silent, study_file, study_tree
from tests.training.factories import labelled, write_dataset

ROOT = Path(__file__).parents[2]
TIMES = ("step_ms", "wall_s")


@pytest.fixture(scope="module")
def plan(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Return a study that has been run; the first student serves as its teacher."""
    folder = tmp_path_factory.mktemp("study")
    made = plan_of(dataset, folder)
    run_study(made, watch=silent())
    teacher = made.students[0].folder / "student.pt"
    made = plan_of(dataset, folder, teacher_checkpoint=str(teacher))
    assert run_study(made, watch=silent()) is None
    return made


def result_of(plan: Plan, index: int) -> dict[str, Any]:
    result = read_json(plan.students[index].result_file)
    assert result is not None
    return result


def test_a_result_is_what_training_and_evaluation_give(
    plan: Plan, dataset: Path, tmp_path: Path
) -> None:
    run = plan.students[1]
    alone = run.config.model_copy(
        update={"run": run.config.run.model_copy(update={"folder": tmp_path / "run"})}
    )
    train(alone, quiet=True)
    student = load_model(tmp_path / "run" / "student.pt")
    frames = build_frames(DataCache().dataset(dataset).structures, student)
    expected = evaluate(student, frames).all
    found = result_of(plan, 1)["labels"]["all"]
    assert found["force_mae_meV_per_A"] == expected.force_mae_meV_per_A
    assert found["energy_mae_meV"] == expected.energy_mae_meV
    assert found["n_frames"] == 16


def test_frames_that_a_recipe_leaves_out_are_not_measured(
    plan: Plan, dataset: Path
) -> None:
    run, cache = plan.students[1], DataCache()
    student = load_model(run.folder / "student.pt")
    largest = [
        np.linalg.norm(frame.forces, axis=1).max()
        for frame in cache.dataset(dataset).structures
    ]
    limit = sorted(largest)[5]
    data = run.config.data.model_copy(update={"largest_force": limit})
    config = run.config.model_copy(update={"data": data})
    frames = cache.evaluation_frames(run.evaluate, config, student)
    assert len(frames) == 6


def test_a_result_has_cost_losses_and_size(plan: Plan) -> None:
    result = result_of(plan, 1)
    run = plan.students[1]
    records = [
        json.loads(line)
        for line in (run.folder / "metrics.jsonl").read_text().splitlines()
    ]
    steps = [record for record in records if "step_s" in record]
    assert len(steps) == result["steps"] == 3
    middle = sorted(record["step_s"] for record in steps)[1]
    assert result["step_ms"] == pytest.approx(1e3 * middle)
    assert result["losses"]["crack"] == pytest.approx(fmean(r["crack"] for r in steps))
    assert set(result["losses"]) == {"loss", "crack", "task_energy", "task_forces"}
    student = load_model(run.folder / "student.pt")
    assert result["n_weights"] == sum(weight.numel() for weight in student.parameters())


def test_the_table_holds_mean_and_spread_by_hand(plan: Plan) -> None:
    forces = [
        result_of(plan, i)["labels"]["all"]["force_mae_meV_per_A"] for i in (1, 3)
    ]
    lines = (plan.study.folder / "table.md").read_text().splitlines()
    line = next(one for one in lines if one.startswith("| crack+task | 2/2 |"))
    assert f"{fmean(forces):,.1f}" in line
    assert f"± {stdev(forces):,.1f}" in line
    with (plan.study.folder / "table.csv").open() as file:
        row = list(csv.DictReader(file))[1]
    assert float(row["force_mae_meV_per_A_mean"]) == pytest.approx(fmean(forces))
    assert float(row["force_mae_meV_per_A_std"]) == pytest.approx(stdev(forces))
    with (plan.study.folder / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert [run["status"] for run in runs] == ["done"] * 4
    assert float(runs[3]["force_mae_meV_per_A"]) == pytest.approx(forces[1])


def test_baselines_stand_in_the_table(plan: Plan) -> None:
    summary = summarize_study(plan)
    assert summary.baselines is not None
    zero = summary.baselines["all"]["zero_force_baseline_meV_per_A"]
    table = (plan.study.folder / "table.md").read_text()
    assert f"| {zero:,.1f} |" in table
    assert "split all, none of them relaxed;" in table


def test_the_teacher_has_a_row_on_the_same_frames(plan: Plan) -> None:
    # here the teacher is the first student: its row must be the same
    teacher = read_json(plan.study.folder / "teacher.json")
    assert teacher is not None
    assert teacher["labels"] == result_of(plan, 0)["labels"]
    assert "| *teacher* |" in (plan.study.folder / "table.md").read_text()


def test_nothing_is_done_twice(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [run.folder / "student.pt" for run in plan.students]
    files += [run.result_file for run in plan.runs]
    before = [path.stat().st_mtime_ns for path in files]
    table = (plan.study.folder / "table.md").read_bytes()
    monkeypatch.setattr(
        "crack_md.study.study.attempt", lambda *_: pytest.fail("ran again")
    )
    run_study(plan, watch=silent())
    assert [path.stat().st_mtime_ns for path in files] == before
    assert (plan.study.folder / "table.md").read_bytes() == table


def test_the_same_study_elsewhere_gives_the_same_numbers(
    plan: Plan, dataset: Path, tmp_path: Path
) -> None:
    again = plan_of(dataset, tmp_path)
    run_study(again, watch=silent())
    for one, other in zip(
        summarize_study(plan).rows, summarize_study(again).rows, strict=True
    ):
        assert one.columns.keys() == other.columns.keys()
        for key in one.columns.keys() - set(TIMES):
            assert one.columns[key] == other.columns[key]


def test_other_measurements_are_made_without_training(
    plan: Plan, dataset: Path
) -> None:
    student = plan.students[0].folder / "student.pt"
    weights = load_model(student).state_dict()
    changed = {"path": str(dataset), "split": "test"}
    other = plan_of(dataset, plan.study.folder, evaluate=changed)
    run_study(other, watch=silent())
    assert result_of(other, 0)["labels"]["all"]["n_frames"] == 4
    assert result_of(other, 0)["steps"] == 3
    again = load_model(student).state_dict()
    assert all(weights[key].equal(again[key]) for key in weights)
    run_study(plan, watch=silent())


def test_other_settings_in_the_same_folder_are_refused(
    plan: Plan, dataset: Path
) -> None:
    methods = {"vanilla": {"losses": [CRACK]}}
    other = plan_of(dataset, plan.study.folder, methods=methods)
    with pytest.raises(ConfigError, match=r"losses\.0\.kind was 'task', now 'crack'"):
        run_study(other, watch=silent())


def test_a_failure_is_a_row_and_is_tried_again(dataset: Path, tmp_path: Path) -> None:
    lost = tmp_path / "lost.pt"
    methods = {
        "fails": {"student": {"init_from": str(lost)}},
        "works": {},
    }
    failing = plan_of(dataset, tmp_path / "s", methods=methods, seeds=[1])
    assert run_study(failing, watch=silent()) is None
    bad, good = summarize_study(failing).rows
    assert (bad.n_done, good.n_done) == (0, 1)
    assert "lost.pt" in bad.errors[1]
    table = (tmp_path / "s" / "table.md").read_text()
    assert "| fails | 0/1 | – |" in table
    assert "- fails, seed 1 failed: " in table
    with (tmp_path / "s" / "runs.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["failed", "done"]
    lost.write_bytes((failing.students[1].folder / "student.pt").read_bytes())
    run_study(failing, watch=silent())
    assert summarize_study(failing).rows[0].n_done == 1
    assert not failing.students[0].error_file.exists()


def test_labels_that_are_missing_are_named(tmp_path: Path) -> None:
    rows = [labelled(number, with_teacher=False) for number in range(8)]
    data = write_dataset(tmp_path / "bare.aselmdb", rows)
    made = plan_of(data, tmp_path / "s", seeds=[1])
    run_study(made, watch=silent())
    vanilla, crack = summarize_study(made).rows
    assert vanilla.n_done == 1
    assert "embedding_mae" not in vanilla.columns
    assert "frames without teacher labels" in crack.errors[1]


@pytest.mark.slow
def test_workers_give_the_same_numbers(
    plan: Plan, dataset: Path, tmp_path: Path
) -> None:
    shared = plan_of(dataset, tmp_path, workers=2)
    run_study(shared, watch=silent())
    for one, other in zip(
        summarize_study(plan).rows, summarize_study(shared).rows, strict=True
    ):
        for key in one.columns.keys() - set(TIMES):
            mine, theirs = one.columns[key].values, other.columns[key].values
            assert mine == pytest.approx(theirs, rel=1e-3)  # threads sum differently


@pytest.mark.slow
def test_the_death_of_a_worker_is_a_failed_run(dataset: Path, tmp_path: Path) -> None:
    methods = {"endless": {"run": {"max_steps": 100_000}}, "short": {}}
    made = plan_of(dataset, tmp_path, methods=methods, seeds=[1], workers=2)
    endless, short = made.students

    def kill_all() -> None:
        while not (
            short.result_file.exists() and (endless.folder / "metrics.jsonl").exists()
        ):
            time.sleep(0.05)
        for worker in multiprocessing.active_children():
            worker.kill()

    thread = threading.Thread(target=kill_all)
    thread.start()
    assert run_study(made, watch=silent()) is None
    thread.join()
    failed, done = summarize_study(made).rows  # at the budget of its own
    assert done.n_done + failed.n_done == 1
    reason = (read_json(endless.error_file) or {})["error"]
    assert "the worker process died (signal 9 (SIGKILL))" in reason


def start(study: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.run_cli", "compare", str(study)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240  # importing PyTorch on a busy machine
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_sigterm_stops_a_study_whose_runs_can_go_on(
    dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    tree = study_tree(dataset, folder, seeds=[1], workers=2)
    tree["base"]["run"] |= {"max_steps": 100_000, "checkpoint_every": 5}
    study = study_file(tree, tmp_path)
    process = start(study)
    run = folder / "vanilla" / "100000-steps" / "seed-1"
    try:
        wait_for(run / "checkpoint.pt", process)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; the same command continues" in err
    assert "Traceback" not in err
    step = torch.load(run / "checkpoint.pt", weights_only=True)["step"]
    assert step > 0
    assert not (run / "result.json").exists()
    assert not (run / "error.json").exists()


def test_a_signal_stops_a_study_without_workers_too(
    dataset: Path, tmp_path: Path
) -> None:
    tree = study_tree(dataset, tmp_path, seeds=[1])
    tree["base"]["run"] |= {"max_steps": 100_000}
    endless = plan_of(dataset, tmp_path, base=tree["base"], seeds=[1])
    metrics = endless.students[0].folder / "metrics.jsonl"

    def stop() -> None:
        while not metrics.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    assert run_study(endless, watch=silent()) == "SIGINT"
    thread.join()
    assert (endless.students[0].folder / "checkpoint.pt").exists()
    assert not endless.students[1].folder.exists()


@pytest.mark.slow
def test_a_killed_study_goes_on(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    tree = study_tree(dataset, folder, seeds=[1])
    tree["base"]["run"] |= {"max_steps": 60, "checkpoint_every": 5}
    study = study_file(tree, tmp_path)
    process = start(study)
    run = folder / "vanilla" / "60-steps" / "seed-1"
    try:
        wait_for(run / "checkpoint.pt", process)
    finally:
        process.kill()
        process.communicate()
    assert not (folder / "crack+task").exists()
    made = plan_of(dataset, folder, base=tree["base"], seeds=[1])
    run_study(made, watch=silent())
    assert [row.errors for row in summarize_study(made).rows] == [{}, {}]
    records = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    steps = [record["step"] for record in records if "step_s" in record]
    assert steps == list(range(1, 61))


def test_tables_of_nothing_say_so(dataset: Path, tmp_path: Path) -> None:
    made = plan_of(dataset, tmp_path)
    summary = write_tables(made)
    assert summary.teacher is None
    assert "| vanilla | 0/2 |" in (tmp_path / "table.md").read_text()
