"""Worker processes: order, errors, and workers that die."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crack_md.data.parallel import map_in_order
from crack_md.errors import TeacherError


def nothing() -> None:
    pass


def a_hundred() -> list[int]:
    return [100]


def square(number: int, tool: list[int]) -> int:
    return number * number + tool[0]


def fail(number: int, tool: None) -> int:
    raise TeacherError(f"cannot label {number}")


def die(number: int, tool: None) -> int:
    os._exit(1)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    found = map_in_order(square, range(20), workers=workers, start=a_hundred)

    assert list(found) == [number * number + 100 for number in range(20)]


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_workers_arrive(workers):
    with pytest.raises(TeacherError, match="cannot label 0"):
        list(map_in_order(fail, range(3), workers=workers, start=nothing))


def test_a_worker_that_dies_is_an_error_with_advice():
    with pytest.raises(TeacherError, match="fewer --workers"):
        list(map_in_order(die, range(3), workers=2, start=nothing))


PARENT = """
import os, time
from crack_md.data.parallel import map_in_order

def nothing():
    pass

def worker(number, tool):
    return os.getpid()

if __name__ == "__main__":
    print(next(map_in_order(worker, range(100), workers=2, start=nothing)), flush=True)
    time.sleep(60)
"""


def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()

    deadline = time.monotonic() + 20
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.1)

    assert not _runs(worker)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().split(") ")[1].startswith("Z"))
