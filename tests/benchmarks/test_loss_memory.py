import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.loss_memory import LOSSES, batch, measure
from crack_md.training.losses.crack import unique_pairs

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "loss_memory.py"


def test_batch_has_as_many_pairs_as_it_says() -> None:
    step = batch(2000, n_structures=2, n_degrees=1)
    assert len(unique_pairs(step.graph).first) == 2000


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_can_be_measured(name: str) -> None:
    found = measure(name, n_pairs=2000, n_structures=2)
    assert 0 <= found["loss"] < 1e4
    assert found["peak_GB"] > found["above_inputs_GB"] >= 0


def test_a_loss_is_measured_in_its_own_process() -> None:
    options = ["--pairs", "2000", "--structures", "2", "--here", "--losses", "n2n"]
    answer = subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert json.loads(answer.stdout)["peak_GB"] > 0
