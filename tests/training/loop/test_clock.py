"""Laps of a step, with a clock that is moved by hand."""

from pathlib import Path

import pytest
import torch
from torch import nn

from crack_md.training.config import check_config
from crack_md.training.loop import monitor
from crack_md.training.loop.monitor import Clock
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import train
from tests.training.factories import recipe


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    times = [0.0]
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: times[0])
    return times


def test_shares_are_those_of_the_laps(now: list[float]) -> None:
    clock = Clock(torch.device("cpu"))
    student = nn.Identity()
    clock.follow(student)
    student.register_forward_pre_hook(lambda *_: now.__setitem__(0, now[0] + 3))
    assert clock.throughput() is None
    for step in range(2):
        clock.start(step)
        now[0] += 1
        clock.lap("data")
        student(torch.zeros(1))  # three seconds
        now[0] += 2
        clock.lap("loss")
        now[0] += 4
        clock.lap("update")
        clock.stop(5)
        now[0] += 100
        student(torch.zeros(1))  # validation is no part of a step
    assert clock.last_step_s == 10
    found = clock.throughput()
    assert found is not None
    assert found.as_dict() == {
        "structures_per_s": 0.5,
        "share_data": 0.1,
        "share_teacher": 0.0,
        "share_chains": 0.0,
        "share_student": 0.3,
        "share_loss": 0.2,
        "share_update": 0.4,
    }
    assert str(found) == (
        "0.5 structures/s; of the time teacher 0%, student 30%, loss 20%, "
        "backward and optimizer 40%, data 10%"
    )


def test_a_resumed_clock_adds_up(now: list[float]) -> None:
    first = Clock(torch.device("cpu"))
    first.start(0)
    now[0] += 1
    first.lap("data")
    first.stop(1)
    second = Clock(torch.device("cpu"))
    second.load_state_dict(first.state_dict())
    second.start(1)
    now[0] += 3
    second.lap("teacher")
    second.stop(1)
    found = second.throughput()
    assert found is not None
    assert (found.structures_per_s, found.share_teacher) == (0.5, 0.75)
    second.load_state_dict({})  # a checkpoint without a clock
    assert second.throughput() == found


def test_a_run_tells_its_speed(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = recipe(dataset, tmp_path / "run", max_steps=2)
    summary = train(check_config(tree, source="test"))
    assert summary.throughput is not None
    last = RunFolder(tmp_path / "run").metrics()[-1]
    assert last["structures_per_s"] == summary.throughput.as_dict()["structures_per_s"]
    shares = [value for name, value in last.items() if name.startswith("share")]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert " structures/s; of the time teacher 0%, " in capsys.readouterr().err
