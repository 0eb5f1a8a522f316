"""Screenings by several processes end like those by one, whatever happens to them."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ase.build import fcc111

from crack_md.errors import CheckpointError, WorkerError
from crack_md.progress import ProgressEvent
from crack_md.structures import StructureEntry
from crack_md.workflows.screening.relaxations import LoadModel, Runner, batched_runner
from crack_md.workflows.screening.results import ScreenResult
from crack_md.workflows.screening.workers.driver import Driver
from crack_md.workflows.screening.workers.processes import Processes
from tests.workflows.screening.small_screenings import NO_PLATINUM, run
from tests.workflows.screening.workers.potentials import (
    FINGERPRINT,
    LoadTelling,
    die,
    load_deadly,
    load_emt,
    load_nothing,
    load_other,
)

ENTRIES = [
    StructureEntry(
        f"{metal}-{strain}", fcc111(metal, (1, 1, 3), a=a * strain, vacuum=8.0)
    )
    for metal, a in (("Cu", 3.6), ("Ag", 4.1), ("Au", 4.1), ("Ni", 3.5))
    for strain in (1.0, 1.02)
]


def screened(folder: Path, runner: Runner | None, **options: object) -> ScreenResult:
    return run(folder, ENTRIES, model=NO_PLATINUM, runner=runner, **options)


def driver(load: LoadModel, **options: int) -> Driver:
    return Driver(Processes(load, **{"workers": 2, **options}), fingerprint=FINGERPRINT)


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serial")
    screened(folder, None)
    return folder


def assert_same_tables(folder: Path, serial: Path) -> None:
    for name in ("results.csv", "sites.csv"):
        assert (folder / name).read_bytes() == (serial / name).read_bytes()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_together_in_this_process(tmp_path: Path, serial: Path) -> None:
    screened(tmp_path, batched_runner(load_emt(0).calculator, width=4))
    assert_same_tables(tmp_path, serial)


def test_killed_workers_change_nothing(tmp_path: Path, serial: Path) -> None:
    """Both processes work; each is killed in the middle of what it does."""
    told = tmp_path / "told"
    told.mkdir()
    killed: set[str] = set()

    def kill_one(progress: ProgressEvent) -> None:
        if progress.done in (10, 30):
            pid = min({path.name for path in told.iterdir()} - killed)
            killed.add(pid)
            os.kill(int(pid), signal.SIGKILL)

    workers = driver(LoadTelling(told))
    with workers as runner:
        result = screened(tmp_path, runner, events=CallEach(kill_one))
    assert_same_tables(tmp_path, serial)
    pids = {int(path.name) for path in told.iterdir()}
    assert result.n_relaxed == len(ENTRIES) * 5
    assert workers.n_lost == 2
    assert len(pids) >= 3
    assert os.getpid() not in pids
    assert all(map(gone, pids))


class CallEach(list):  # type: ignore[type-arg]
    """Events of a screening, each handed to a function."""

    def __init__(self, function: Callable[[ProgressEvent], None]) -> None:
        super().__init__()
        self.append = function  # type: ignore[method-assign,assignment]


def test_a_structure_that_kills_its_worker_is_a_row(
    tmp_path: Path, serial: Path
) -> None:
    entries = [ENTRIES[0], ENTRIES[-1], ENTRIES[2]]
    with driver(load_deadly) as runner:
        result = run(tmp_path, entries, model=NO_PLATINUM, runner=runner)
    nickel = next(slab for slab in result.slabs if slab.name == "Ni-1.02")
    assert nickel.status == "clean_failed"
    assert (
        nickel.error == "4 workers were lost with it: a process ended with exit code 9"
    )
    lines = (tmp_path / "sites.csv").read_text().splitlines()
    expected = (serial / "sites.csv").read_text().splitlines()
    assert set(lines) < set(expected)
    assert len(lines) == 1 + 2 * 4


@pytest.mark.parametrize(
    ("load", "error", "message"),
    [
        (load_nothing, CheckpointError, r"no such file: 'absent.pt'"),
        (load_other, WorkerError, r"another one, and this process emt"),
        (die, WorkerError, r"3 workers in a row .* exit code 7"),
    ],
)
def test_workers_that_cannot_start_are_one_error(
    tmp_path: Path, load: LoadModel, error: type[Exception], message: str
) -> None:
    with driver(load) as runner, pytest.raises(error, match=message):
        screened(tmp_path, runner)
    assert not [t for t in threading.enumerate() if "worker" in t.name]


def test_an_error_of_the_driver_ends_the_workers(tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.mkdir()

    def interrupt(progress: ProgressEvent) -> None:
        raise KeyboardInterrupt

    with driver(LoadTelling(told)) as runner, pytest.raises(KeyboardInterrupt):
        screened(tmp_path, runner, events=CallEach(interrupt))
    pids = {int(path.name) for path in told.iterdir()}
    assert pids
    wait_until(lambda: all(map(gone, pids)), 5.0)
