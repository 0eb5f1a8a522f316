"""The same tables on a real local Ray cluster, whoever is killed."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ase.build import fcc111

from crack_md.errors import CheckpointError, MissingDependencyError, WorkerError
from crack_md.progress import ProgressEvent
from crack_md.structures import StructureEntry
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.screening import screen as screen_module
from crack_md.workflows.screening.plan import SlabPlan, plan_slab
from crack_md.workflows.screening.relaxations import LoadModel, Runner
from crack_md.workflows.screening.workers import ray_cluster
from crack_md.workflows.screening.workers.driver import Driver
from crack_md.workflows.screening.workers.processes import Processes
from crack_md.workflows.screening.workers.ray_cluster import RayActors, connect
from tests.cli.commands import crack_md
from tests.workflows.screening.small_screenings import NO_PLATINUM, fast, run
from tests.workflows.screening.workers.driver import killed_after, rows_of, write_slabs
from tests.workflows.screening.workers.potentials import (
    FINGERPRINT,
    LoadTelling,
    load_emt,
    load_nothing,
)
from tests.workflows.screening.workers.test_processes import (
    ENTRIES,
    CallEach,
    assert_same_tables,
    gone,
    wait_until,
)

pytest.importorskip("ray")
GASES = "H2O=2.2,H2=2.5"


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Give a cluster of two cores on this machine: no dashboard, little memory."""
    found = None
    for attempt in range(3):
        try:
            found = connect("local", num_cpus=2)
            break
        except WorkerError:  # Ray waits half a minute; busy machines may need more
            if attempt == 2:
                raise
    assert found is not None
    yield found
    found.shutdown()


def driver(ray: Any, load: LoadModel, **options: Any) -> Driver:
    return Driver(RayActors(ray, load, **options), fingerprint=FINGERPRINT)


def test_killed_worker_changes_nothing(ray: Any, tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.mkdir()

    def kill_one(progress: ProgressEvent) -> None:
        if progress.done == 12:
            os.kill(int(min(told.iterdir()).name), signal.SIGKILL)

    workers = driver(ray, LoadTelling(told))
    with workers as runner:
        options = {"model": NO_PLATINUM, "runner": runner}
        run(tmp_path, ENTRIES, events=CallEach(kill_one), **options)
    run(tmp_path / "serial", ENTRIES, model=NO_PLATINUM)
    assert_same_tables(tmp_path, tmp_path / "serial")
    assert workers.backend.n_workers == 2
    assert workers.n_lost == 1
    pids = [int(path.name) for path in told.iterdir()]
    assert os.getpid() not in pids
    wait_until(lambda: all(map(gone, pids)))


def test_killed_driver_goes_on_to_the_same_table(ray: Any, tmp_path: Path) -> None:
    """Its actors end with it; the command again does what is left."""
    slabs = write_slabs(tmp_path / "slabs.extxyz", 6)
    address = ray.get_runtime_context().gcs_address
    arguments = ["screen", slabs, "--model", "emt", "--fmax", "0.01"]
    arguments += ["--gas-reference", GASES]
    undisturbed = crack_md(*arguments, "--out", tmp_path / "serial")
    assert undisturbed.returncode == 0, undisturbed.stderr
    arguments += ["--out", tmp_path / "out", "--ray", address]
    n_rows = killed_after(arguments, tmp_path / "out" / "results.db", 6)
    again = crack_md(*arguments, "--json")
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("{")
    assert_same_tables(tmp_path / "out", tmp_path / "serial")
    assert 6 <= n_rows < rows_of(tmp_path / "out" / "results.db")


@pytest.mark.slow
def test_thousand_structures_by_everyone(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relaxations that end where they begin: what is tested is who gets them."""
    metals = {"Cu": 3.6, "Ag": 4.1, "Au": 4.1, "Ni": 3.5}
    entries = [
        StructureEntry(
            f"{m}-{i}", fcc111(m, (1, 1, 2), a=a * (1 + i / 5000), vacuum=8.0)
        )
        for m, a in metals.items()
        for i in range(250)
    ]
    model = ModelInfo("emt", "ase", "adsorption", elements=NO_PLATINUM.elements)
    options: dict[str, Any] = {
        "model": model,
        "settings": fast(fmax=99.0, max_sites=1),
    }

    plans: dict[str, SlabPlan] = {}

    def planned_once(entry: StructureEntry, **conditions: Any) -> SlabPlan:
        if entry.name not in plans:
            plans[entry.name] = plan_slab(entry, **conditions)
        return plans[entry.name]

    monkeypatch.setattr(screen_module, "plan_slab", planned_once)

    def screened(name: str, runner: Runner | None) -> None:
        result = run(tmp_path / name, entries, runner=runner, **options)
        assert result.n_relaxed == 1000

    screened("serial", None)
    with driver(ray, load_emt, width=4) as runner:
        screened("ray", runner)
    processes = Processes(load_emt, workers=2, width=4)
    with Driver(processes, fingerprint=FINGERPRINT) as runner:
        screened("processes", runner)
    for name in ("ray", "processes"):
        assert_same_tables(tmp_path / name, tmp_path / "serial")


def test_workers_that_cannot_start_are_one_error(ray: Any, tmp_path: Path) -> None:
    with (
        driver(ray, load_nothing) as runner,
        pytest.raises(CheckpointError, match=r"no such file: 'absent\.pt'"),
    ):
        run(tmp_path, ENTRIES, model=NO_PLATINUM, runner=runner)


def test_shares_of_gpus_that_are_not_there(
    ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        WorkerError, match=r"has 2 cores and 0 GPUs, .* needs 1 and 0.25"
    ):
        driver(ray, load_emt, gpus_per_worker=0.25)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64.0, "GPU": 3.0})
    assert RayActors(ray, load_emt, gpus_per_worker=0.25).n_workers == 12
    assert RayActors(ray, load_emt, gpus_per_worker=0.1).n_workers == 30
    assert RayActors(ray, load_emt, cpus_per_worker=4.0).n_workers == 16
    assert RayActors(ray, load_emt, workers=99).n_workers == 99


def test_workers_that_never_come(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster has no such cores; nobody waits for ever."""
    monkeypatch.setattr(ray_cluster, "START_LIMIT_S", 0.5)
    monkeypatch.setattr(ray_cluster, "POLL_S", 0.1)
    with (
        driver(ray, load_emt, workers=1, cpus_per_worker=64.0) as runner,
        pytest.raises(WorkerError, match=r"no Ray worker has started"),
    ):
        run(tmp_path, ENTRIES, model=NO_PLATINUM, runner=runner)


def test_no_cluster_and_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'crack-md\[ray\]'"):
        connect("local")
