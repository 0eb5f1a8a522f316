"""On how many processors ``crack-md screen`` works; this process alone writes."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from crack_md.errors import ConfigError

if TYPE_CHECKING:
    from crack_md.api.models import PotentialLoader
    from crack_md.workflows.screening.relaxations import Runner
    from crack_md.workflows.screening.workers.driver import Driver

BATCH_ON_GPU = 64


@dataclass(frozen=True)
class Scale:
    """What the options say about workers.

    Raises:
        ConfigError: options that have no meaning together.
    """

    workers: int | None = None
    batch: int | None = None
    ray: str | None = None
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares of GPUs that nobody gives out."""
        if self.gpus_per_worker and self.ray is None:
            raise ConfigError("--gpus-per-worker needs --ray: it is about its workers")

    def width(self, calculator: Any) -> int:
        """Return how many relaxations every process does at a time."""
        if self.batch is not None:
            return self.batch
        device = str(getattr(calculator, "device", "cpu"))
        here = self.ray is None and device.startswith("cuda")
        return BATCH_ON_GPU if here or self.gpus_per_worker else 1

    @property
    def is_here(self) -> bool:
        """Return whether this process does the relaxations itself."""
        return self.ray is None and (self.workers or 1) == 1

    def threads(self) -> int:
        """Return how many threads of PyTorch every worker has."""
        if self.ray is not None:
            return 1
        import torch

        return max(1, torch.get_num_threads() // (self.workers or 1))


@contextmanager
def open_runner(
    scale: Scale, calculator: Any, loader: "PotentialLoader", expected: str
) -> Iterator[tuple["Runner", Mapping[str, Any]]]:
    """Give what does the relaxations, and what the summary says about it.

    Args:
        scale: what the options say.
        calculator: of this process.
        loader: makes those of workers.
        expected: the fingerprint that theirs must have.

    Raises:
        WorkerError: there is no such cluster, or no room on it.
        MissingDependencyError: Ray is not installed.
    """
    from crack_md.workflows.screening.workers.worker import batched_runner

    width = scale.width(calculator)
    facts = {"workers": scale.workers or 1, "batch": width, "ray": scale.ray}
    if scale.is_here:
        yield batched_runner(calculator, width=width), facts
        return
    # of a lost worker Ray tells on stdout, which is for results
    with (
        redirect_stdout(sys.stderr),
        _open_driver(scale, loader, width, expected) as driver,
    ):
        facts["workers"] = driver.backend.n_workers
        yield driver, facts
    if driver.n_lost:
        typer.echo(
            f"note: {driver.n_lost} workers were lost; what they had was done again",
            err=True,
        )


@contextmanager
def _open_driver(
    scale: Scale, loader: "PotentialLoader", width: int, expected: str
) -> Iterator["Driver"]:
    from crack_md.workflows.screening.workers.driver import Driver
    from crack_md.workflows.screening.workers.processes import Processes
    from crack_md.workflows.screening.workers.ray_cluster import RayActors, connect

    if scale.ray is None:
        backend = Processes(loader, workers=scale.workers or 1, width=width)
        with Driver(backend, fingerprint=expected) as driver:
            yield driver
        return
    ray = connect(scale.ray)
    try:
        actors = RayActors(
            ray,
            loader,
            workers=scale.workers,
            width=width,
            gpus_per_worker=scale.gpus_per_worker,
        )
        with Driver(actors, fingerprint=expected) as driver:
            yield driver
    finally:
        ray.shutdown()
