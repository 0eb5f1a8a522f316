"""Two processes train as one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning_fabric import Fabric

from crack_md.training.config_file import check_config
from crack_md.training.parallel import FabricRanks
from crack_md.training.run import RunFolder
from crack_md.training.train import train
from tests.training.factories import recipe

ROOT = Path(__file__).parents[2]


def test_one_process_exchanges_nothing() -> None:
    ranks = FabricRanks(Fabric(accelerator="cpu", devices=1))
    rows = torch.randn(3, 2)
    assert ranks.gather(rows) is rows
    assert ranks.average(torch.tensor(2.0)).item() == 2.0


@pytest.mark.slow
def test_two_processes_equal_one(dataset: Path, tmp_path: Path) -> None:
    trees = {}
    for devices in (1, 2):
        tree = recipe(dataset, tmp_path / str(devices), devices=devices, max_steps=3)
        # candidates of all processes: the hardest term to get right
        tree["losses"][0]["negatives"] = "global"
        tree["losses"].append({"kind": "task", "energy_weight": 1, "force_weight": 10})
        trees[devices] = tree
    train(check_config(trees[1], source="test"), quiet=True)
    page = tmp_path / "two.yaml"
    page.write_text(yaml.safe_dump(trees[2]))
    subprocess.run(
        [sys.executable, "-m", "tests.training.run_cli", "train", str(page)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    folders = [RunFolder(tmp_path / name) for name in ("1", "2")]
    one, two = (folder.load_checkpoint()["objective"] for folder in folders)
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=1e-5), name
    for key in ("crack", "n2n", "output_forces", "task_forces"):
        curves = [[r[key] for r in f.metrics() if key in r] for f in folders]
        assert len(curves[0]) == 3
        assert curves[0] == pytest.approx(curves[1], rel=1e-4), key
