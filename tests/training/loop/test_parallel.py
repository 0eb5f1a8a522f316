"""Two processes train as one does."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning_fabric import Fabric
from pydantic import ValidationError

from crack_md.data.parallel import first_rank_first
from crack_md.errors import ConfigError
from crack_md.training.config import RunConfig, check_config
from crack_md.training.loop.parallel import (
    FabricRanks,
    launched_fabric,
)
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import train
from tests.models.test_architectures import OPTIONS
from tests.training.factories import recipe

ROOT = Path(__file__).parents[3]
TERMS = ("loss", "crack", "n2n", "output_forces", "task_forces")


def losses(**crack: object) -> list[dict[str, object]]:
    return [
        {"kind": "crack", "weight": 1.0, "temperature": 0.15} | crack,
        {"kind": "n2n", "weight": 1.0},
        {"kind": "output", "energy_weight": 4.0, "force_weight": 100.0},
        {"kind": "task", "energy_weight": 1, "force_weight": 10},
    ]


def train_here(tree: dict[str, Any]) -> None:
    train(check_config(tree, source="test"), quiet=True)


def train_in_processes(tree: dict[str, Any], page: Path) -> None:
    """Train as the command line does: Fabric starts it again for the second process."""
    page.write_text(yaml.safe_dump(tree))
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.run_cli", "train", str(page), "--quiet"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def assert_same_curves(
    one: Path, two: Path, *, n_steps: int, rel: float, terms: Sequence[str] = TERMS
) -> None:
    curves = [
        {
            key: [record[key] for record in RunFolder(path).metrics() if key in record]
            for key in terms
        }
        for path in (one, two)
    ]
    for key, values in curves[0].items():
        assert len(values) in (0, n_steps)
        assert values == pytest.approx(curves[1][key], rel=rel), key


def assert_same_run(one: Path, two: Path, *, n_steps: int) -> None:
    assert_same_curves(one, two, n_steps=n_steps, rel=1e-4)
    first, second = (
        RunFolder(path).load_checkpoint()["objective"] for path in (one, two)
    )
    for name, tensor in first.items():
        assert torch.allclose(tensor, second[name], atol=1e-5), name


def test_one_process_exchanges_nothing() -> None:
    ranks = FabricRanks(Fabric(accelerator="cpu", devices=1))
    rows = torch.randn(3, 2)
    assert ranks.gather(rows) is rows
    assert ranks.average(torch.tensor(2.0)).item() == 2.0
    assert ranks.first_row(3) == 0
    with first_rank_first() as is_first:
        assert is_first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crack", "run"),
    [
        ({"negatives": "global"}, {"batch_size": 4}),
        ({}, {"batch_size": 5, "accumulate": 2}),
        ({}, {"batch_size": None, "atoms_per_batch": 32}),
    ],
    ids=["global", "accumulated", "atoms"],
)
def test_two_processes_equal_one(
    dataset: Path, tmp_path: Path, crack: dict[str, Any], run: dict[str, Any]
) -> None:
    """Parts differ in atoms, free atoms and pairs, and so do the means over them."""
    trees = {}
    for devices in (1, 2):
        changes = run | ({"accumulate": 1} if devices == 1 else {})
        tree = recipe(
            dataset, tmp_path / str(devices), devices=devices, max_steps=3, **changes
        )
        trees[devices] = tree | {"losses": losses(**crack)}
    train_here(trees[1])
    train_in_processes(trees[2], tmp_path / "two.yaml")
    assert_same_run(tmp_path / "1", tmp_path / "2", n_steps=3)


@pytest.mark.slow
def test_bfloat16_in_two_processes(dataset: Path, tmp_path: Path) -> None:
    trees = [
        recipe(dataset, tmp_path / str(n), devices=n, max_steps=3, precision="bfloat16")
        for n in (1, 2)
    ]
    for tree in trees:
        tree["losses"] = losses()
    train_here(trees[0])
    train_in_processes(trees[1], tmp_path / "two.yaml")
    # Sums in another order: the last of bfloat16's eight bits. The first steps of AdamW
    # make much of it where gradients are small, and crack, the relations of atoms that
    # new weights hardly tell apart, moves by a tenth; float32 has none of that.
    first, second = (RunFolder(tmp_path / n).metrics()[0] for n in ("1", "2"))
    assert first["crack"] == pytest.approx(second["crack"], rel=1e-5)
    smooth = ("n2n", "output_forces", "task_forces")
    assert_same_curves(
        tmp_path / "1", tmp_path / "2", n_steps=3, rel=2e-3, terms=smooth
    )


@pytest.mark.slow
def test_a_run_goes_on_with_more_processes(dataset: Path, tmp_path: Path) -> None:
    """Started on one process, continued on two: the curve is that of one.

    The teacher labels when a run starts. The second process waits for the first to do
    so, and both read what the first start has kept.
    """
    whole = recipe(dataset, tmp_path / "whole", max_steps=4)
    pieces = recipe(dataset, tmp_path / "pieces", max_steps=2)
    for tree in (whole, pieces):
        tree["teacher"] = {"kind": "online", "spec": "emt"}
        tree["losses"] = losses()[2:]
        # without an end to aim at, two and four steps have the same learning rates
        tree["optimizer"]["lr_end_factor"] = 1.0
    train_here(pieces)
    pieces["run"] |= {"max_steps": 4, "devices": 2}
    train_in_processes(pieces, tmp_path / "two.yaml")
    assert (tmp_path / "pieces" / "teacher_labels.aselmdb").exists()
    train_here(whole)
    assert_same_run(tmp_path / "whole", tmp_path / "pieces", n_steps=4)


@pytest.mark.parametrize("accelerator", ["mps", "tpu", "xpu", "meta", ""])
def test_accelerators_that_cannot_train_are_refused(accelerator: str) -> None:
    with pytest.raises(ValidationError, match="'auto', 'cpu', 'cuda' or 'gpu'"):
        RunConfig(
            folder=Path("run"), max_steps=1, batch_size=1, accelerator=accelerator
        )


def test_more_gpus_than_there_are_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = RunConfig(folder=Path("run"), max_steps=1, batch_size=1, accelerator="gpu")
    with (
        pytest.raises(ConfigError, match="this machine has 0 GPUs"),
        launched_fabric(run),
    ):
        pass


def test_students_whose_weights_all_have_slopes_train_quietly(
    dataset: Path, tmp_path: Path
) -> None:
    """PyTorch warns its developers of such weights, and of strides of single rows."""
    tree = recipe(dataset, tmp_path / "run", devices=2, max_steps=2)
    tree["student"]["architecture"] = OPTIONS["ace"]
    tree["losses"].append({"kind": "task", "energy_weight": 1.0, "force_weight": 9.0})
    train_in_processes(tree, tmp_path / "run.yaml")
