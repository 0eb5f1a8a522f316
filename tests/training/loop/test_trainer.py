"""The loop: it learns, it resumes bit for bit, and it stops when asked."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ase.build import bulk

from crack_md.errors import CheckpointError, ConfigError, DataError
from crack_md.models.checkpoint import load_model
from crack_md.training.config import TrainConfig, check_config
from crack_md.training.loop.monitor import RunMonitor
from crack_md.training.loop.optim import WarmupCosine
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import train
from tests.training.factories import TINY, labelled, recipe, write_dataset


def config_of(tree: dict[str, Any]) -> TrainConfig:
    return check_config(tree, source="test")


def records(folder: Path, key: str) -> list[float]:
    return [record[key] for record in RunFolder(folder).metrics() if key in record]


def test_run_leaves_a_student_that_serves(dataset: Path, tmp_path: Path) -> None:
    summary = train(config_of(recipe(dataset, tmp_path / "run")), quiet=True)
    assert summary.step == 10
    assert summary.stopped_by is None
    model = load_model(tmp_path / "run" / "student.pt")
    assert model.metadata.elements == (29, 79)
    assert model.metadata.energy_reference == "total"
    assert dict(model.metadata.gas_references) == {"H2O": -12.8, "H2": -6.7}
    told = model.metadata.provenance
    assert told["teacher"] == "emt"
    assert told["config"]["optimizer"]["lr"] == 5e-3
    assert told["losses"][0]["kind"] == "crack"
    assert told["metrics"]["all"]["n_frames"] == 4
    resolved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert resolved["optimizer"]["weight_decay"] == 0.001
    names = set(RunFolder(tmp_path / "run").metrics()[0])
    assert {"crack", "n2n", "output_energy", "output_forces", "lr"} <= names


@pytest.mark.parametrize("forces", ["direct", "gradient"])
def test_training_brings_the_errors_down(
    dataset: Path, tmp_path: Path, forces: str
) -> None:
    tree = recipe(dataset, tmp_path / "run", max_steps=60, validate_every=20)
    tree["student"]["architecture"] = TINY | {"forces": forces}
    tree["optimizer"]["ema_decay"] = 0.9
    train(config_of(tree), quiet=True)
    losses = records(tmp_path / "run", "loss")
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    baseline = records(tmp_path / "run", "val_zero_force_baseline_meV_per_A")[-1]
    assert records(tmp_path / "run", "val_force_mae_meV_per_A")[-1] < 0.7 * baseline


@pytest.mark.parametrize("forces", ["direct", "gradient"])
def test_resumed_run_equals_an_uninterrupted_one(
    dataset: Path, tmp_path: Path, forces: str
) -> None:
    whole = recipe(dataset, tmp_path / "whole")
    halves = recipe(dataset, tmp_path / "halves")
    for tree in (whole, halves):
        tree["student"]["architecture"] = TINY | {"forces": forces}
    train(config_of(whole), quiet=True)

    # stop after five of ten steps, as a signal would: the schedule still aims at ten
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 5)
        assert train(config_of(halves), quiet=True).stopped_by == "SIGTERM"
    assert not (tmp_path / "halves" / "student.pt").exists()
    train(config_of(halves), quiet=True)

    one, other = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("whole", "halves")
    )
    assert one["step"] == other["step"] == 10
    for part in ("objective", "optimizer", "average"):
        assert_identical(one[part], other[part], part)
    losses = [records(tmp_path / name, "loss") for name in ("whole", "halves")]
    assert losses[0] == losses[1]


def stop_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Ask for an end when the bar moves to a step, as a signal does."""
    update = RunMonitor.update

    def stopping(self: RunMonitor, fraction: float, description: str) -> None:
        update(self, fraction, description)
        if description.startswith(f"step {steps} "):
            self.stop_requested = "SIGTERM"

    patch.setattr(RunMonitor, "update", stopping)


def assert_identical(one: Any, other: Any, where: str) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_identical(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_identical(a, b, f"{where}.{index}")
    else:
        assert one == other, where


def test_a_run_goes_on_without_another_pass_over_the_frames(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = recipe(dataset, tmp_path / "run", max_steps=4)
    train(config_of(tree), quiet=True)
    start = load_model(tmp_path / "run" / "start.pt")
    end = load_model(tmp_path / "run" / "student.pt")
    assert start.scale == end.scale
    assert start.metadata.shortest_distances == end.metadata.shortest_distances

    def fail(*_: object) -> None:
        raise AssertionError("units and references are those of the first start")

    monkeypatch.setattr("crack_md.training.loop.train.build_student", fail)
    tree["run"]["max_steps"] = 6
    assert train(config_of(tree), quiet=True).step == 6
    (tmp_path / "run" / "checkpoint.pt").unlink()
    with pytest.raises(AssertionError, match="first start"):  # which begins again
        train(config_of(tree), quiet=True)


def test_time_budget_ends_the_run(dataset: Path, tmp_path: Path) -> None:
    tree = recipe(dataset, tmp_path / "run", max_steps=None, max_seconds=1.0)
    summary = train(config_of(tree), quiet=True)
    assert 1.0 <= summary.elapsed_s < 20
    plan = WarmupCosine(
        lr=5e-3, warmup_steps=3, lr_end_factor=0.01, max_steps=None, max_seconds=1.0
    )
    steps = [r for r in RunFolder(tmp_path / "run").metrics() if "lr" in r]
    for before, after in pairwise([{"elapsed_s": 0.0}, *steps]):
        # the rate was set between the ends of two steps, which are logged
        early, late = (
            plan.learning_rate(after["step"] - 1, one["elapsed_s"])
            for one in (before, after)
        )
        assert late <= after["lr"] <= early
    assert plan.progress(steps[-1]["step"], steps[-1]["elapsed_s"]) == 1.0
    assert RunFolder(tmp_path / "run").load_checkpoint()["elapsed_s"] >= 1.0


def test_finished_run_stays_finished(dataset: Path, tmp_path: Path) -> None:
    tree = recipe(dataset, tmp_path / "run", max_steps=3)
    train(config_of(tree), quiet=True)
    before = (tmp_path / "run" / "student.pt").read_bytes()
    assert train(config_of(tree), quiet=True).step == 3
    weights = [load_model(tmp_path / "run" / "student.pt").state_dict()]
    (tmp_path / "run" / "student.pt").write_bytes(before)
    weights.append(load_model(tmp_path / "run" / "student.pt").state_dict())
    assert_identical(weights[0], weights[1], "student")


def test_a_run_may_grow_but_not_change(dataset: Path, tmp_path: Path) -> None:
    tree = recipe(dataset, tmp_path / "run", max_steps=2)
    train(config_of(tree), quiet=True)
    tree["run"]["max_steps"] = 4
    assert train(config_of(tree), quiet=True).step == 4
    # the run of an older version, which did not know this setting
    page = tmp_path / "run" / "config.yaml"
    before = page.read_text().replace("  precision: float32\n", "")
    assert before != page.read_text()
    page.write_text(before)
    tree["run"]["max_steps"] = 5
    assert train(config_of(tree), quiet=True).step == 5
    tree["optimizer"]["lr"] = 1.0
    with pytest.raises(ConfigError, match=r"optimizer\.lr was 0\.005, now 1\.0"):
        train(config_of(tree), quiet=True)


LOSSES = [
    {"kind": "crack", "weight": 1.0, "temperature": 0.15},
    {"kind": "instance", "weight": 1.0, "temperature": 0.15},
    {"kind": "n2n", "weight": 1.0},
    {"kind": "output", "energy_weight": 4.0, "force_weight": 100.0, "per_atom": True},
    {"kind": "task", "energy_weight": 1.0, "force_weight": 10.0},
]


def test_accumulated_parts_equal_the_whole_batch(dataset: Path, tmp_path: Path) -> None:
    gradients = {}
    for parts in (1, 2, 3):
        tree = recipe(
            dataset, tmp_path / str(parts), max_steps=1, accumulate=parts, batch_size=5
        )
        tree["losses"] = LOSSES
        gradients[parts] = first_gradient(config_of(tree))
    logged = [RunFolder(tmp_path / parts).metrics()[0] for parts in ("1", "2", "3")]
    for name in ("loss", "crack", "instance", "n2n", "output_forces", "task_forces"):
        values = [record[name] for record in logged]
        assert values == pytest.approx([values[0]] * 3, rel=1e-5), name
    for name, whole in gradients[1].items():
        for parts in (2, 3):
            # parts of four and eight atoms: a mean of means would miss by percents
            torch.testing.assert_close(
                gradients[parts][name], whole, rtol=1e-3, atol=1e-4, msg=name
            )


def first_gradient(config: TrainConfig) -> dict[str, torch.Tensor]:
    """Train, and return what the optimizer made of its first gradient."""
    train(config, quiet=True)
    state = RunFolder(config.run.folder).load_checkpoint()["optimizer"]["state"]
    # after one step the first moment is 0.1 of the gradient
    return {str(key): held["exp_avg"] * 10 for key, held in state.items()}


def test_fine_tuning_takes_over_weights_head_and_scale(
    dataset: Path, tmp_path: Path
) -> None:
    train(config_of(recipe(dataset, tmp_path / "direct")), quiet=True)
    tree = recipe(dataset, tmp_path / "gradient", max_steps=1)
    tree["optimizer"] |= {"lr": 1e-12, "weight_decay": 0.0}
    tree["student"] = {
        "architecture": TINY | {"forces": "gradient"},
        "init_from": str(tmp_path / "direct" / "student.pt"),
    }
    train(config_of(tree), quiet=True)
    direct, gradient = (
        load_model(tmp_path / name / "student.pt") for name in ("direct", "gradient")
    )
    assert gradient.forces == "gradient"
    assert gradient.scale == direct.scale
    held = direct.network.state_dict()
    for name, tensor in gradient.network.state_dict().items():
        assert torch.allclose(tensor, held[name], atol=1e-6), name
    heads = [
        torch.load(tmp_path / name / "feature_head.pt", weights_only=True)
        for name in ("direct", "gradient")
    ]
    assert torch.allclose(
        heads[0]["linear.weight"], heads[1]["linear.weight"], atol=1e-6
    )


def test_fine_tuning_from_another_size_is_refused(
    dataset: Path, tmp_path: Path
) -> None:
    train(config_of(recipe(dataset, tmp_path / "small", max_steps=1)), quiet=True)
    tree = recipe(dataset, tmp_path / "large")
    tree["student"] = {
        "architecture": TINY | {"sphere_channels": 16, "forces": "gradient"},
        "init_from": str(tmp_path / "small" / "student.pt"),
    }
    with pytest.raises(ConfigError, match=r"matches \d+ of \d+ weights"):
        train(config_of(tree), quiet=True)


def test_online_teacher_labels_frames_itself(tmp_path: Path) -> None:
    bare = write_dataset(
        tmp_path / "bare.aselmdb",
        [labelled(number, with_teacher=False) for number in range(4)],
    )
    tree = recipe(bare, tmp_path / "run", max_steps=1, batch_size=2)
    tree["losses"] = [{"kind": "output", "energy_weight": 1.0, "force_weight": 1.0}]
    with pytest.raises(DataError, match="without teacher labels"):
        train(config_of(tree), quiet=True)
    tree["teacher"] = {"kind": "online", "spec": "emt"}
    train(config_of(tree), quiet=True)
    told = load_model(tmp_path / "run" / "student.pt").metadata.provenance
    assert told["teacher"] == "emt"


def test_feature_loss_without_features_is_refused(tmp_path: Path) -> None:
    bare = write_dataset(tmp_path / "bare.aselmdb", [labelled(0, with_teacher=False)])
    tree = recipe(bare, tmp_path / "run")
    tree["losses"] = [{"kind": "n2n", "weight": 1.0}]
    tree["teacher"] = {"kind": "online", "spec": "emt"}
    with pytest.raises(DataError, match="without teacher node features"):
        train(config_of(tree), quiet=True)
    assert not (tmp_path / "run").exists()


def test_bfloat16_stays_finite_on_a_perfect_crystal(tmp_path: Path) -> None:
    crystal = dataclasses.replace(
        labelled(0), atoms=bulk("Cu", cubic=True) * (1, 1, 2), split="train"
    )
    data = write_dataset(tmp_path / "crystal.aselmdb", [crystal])
    tree = recipe(
        data, tmp_path / "run", precision="bfloat16", batch_size=2, max_steps=3
    )
    train(config_of(tree), quiet=True)
    assert records(tmp_path / "run", "skipped") == [0, 0, 0]
    assert all(abs(loss) < 1e9 for loss in records(tmp_path / "run", "loss"))


def test_broken_labels_end_the_run_in_one_line(tmp_path: Path) -> None:
    good = labelled(0)
    nowhere = good.forces * float("nan")
    broken = dataclasses.replace(
        good, split="train", teacher=dataclasses.replace(good.teacher, forces=nowhere)
    )
    data = write_dataset(tmp_path / "broken.aselmdb", [broken])
    tree = recipe(data, tmp_path / "run", max_steps=50, batch_size=1)
    with pytest.raises(DataError, match="training diverged: 20 steps in a row"):
        train(config_of(tree), quiet=True)


def test_damaged_checkpoint_is_named(dataset: Path, tmp_path: Path) -> None:
    tree = recipe(dataset, tmp_path / "run", max_steps=1)
    train(config_of(tree), quiet=True)
    path = tmp_path / "run" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: cannot be read"):
        train(config_of(tree), quiet=True)


def test_unwritable_folder_is_named(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tree = recipe(dataset, tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match=r"run\.folder .* cannot be written"):
        train(config_of(tree), quiet=True)


def test_sigterm_leaves_a_checkpoint_and_one_line(
    dataset: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.yaml"
    tree = recipe(dataset, tmp_path / "run", max_steps=None, max_seconds=120.0)
    page.write_text(yaml.safe_dump(tree))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training.run_cli", "train", str(page), "--quiet"],
        cwd=Path(__file__).parents[3],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") > 2):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM at step" in stderr
    assert stderr.count("\n") == 1
    step = RunFolder(tmp_path / "run").load_checkpoint()["step"]
    assert step == json.loads(metrics.read_text().splitlines()[-1])["step"]
