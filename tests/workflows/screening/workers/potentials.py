"""Potentials for workers, and backends whose workers do what a test says."""

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

from ase.calculators.emt import EMT

from crack_md.errors import CheckpointError
from crack_md.workflows.screening.relaxations import (
    RelaxFunction,
    SiteRelaxation,
    WorkerModel,
)
from crack_md.workflows.screening.workers.driver import Done, Event, Lost, Ready

FINGERPRINT = "emt"


def load_emt(_: int) -> WorkerModel:
    return WorkerModel(EMT(), fingerprint=FINGERPRINT)


def load_other(_: int) -> WorkerModel:
    return WorkerModel(EMT(), fingerprint="another one")


def load_nothing(_: int) -> WorkerModel:
    raise CheckpointError("no such file: 'absent.pt'")


def die(_: int) -> WorkerModel:
    os._exit(7)


class Deadly(EMT):
    """EMT that ends its process where there is Ni."""

    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        if "Ni" in atoms.symbols:
            os._exit(9)
        super().calculate(atoms, *args, **kwargs)


def load_deadly(_: int) -> WorkerModel:
    return WorkerModel(Deadly(), fingerprint=FINGERPRINT)


class Telling(EMT):
    """EMT that leaves the number of its process in a folder, and takes its time."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        (self.folder / str(os.getpid())).touch()
        time.sleep(2e-3)
        super().calculate(*args, **kwargs)


class LoadTelling:
    """Loads `Telling`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, _: int) -> WorkerModel:
        return WorkerModel(Telling(self.folder), fingerprint=FINGERPRINT)


class InTurn:
    """Workers of this process, that do one task at every wait and die when told."""

    def __init__(self, *, workers: int = 2, width: int = 1) -> None:
        self.n_workers, self.width = workers, width
        self.deaths: deque[int] = deque()
        """Workers that die at the coming waits, one after the other."""
        self.deadly: set[str] = set()
        """Keys that kill a worker as soon as it has them."""
        self.held: dict[int, list[SiteRelaxation]] = {}
        self.most_held = 0
        self.solo: list[str] = []
        """Keys of tasks that were alone on their worker when it died."""
        self.starts: list[int] = []
        self._waiting: list[int] = []
        self._function: RelaxFunction | None = None

    def start(self, worker: int, function: RelaxFunction) -> None:
        self._function = function
        self.starts.append(worker)
        self._waiting.append(worker)
        self.held[worker] = []

    def send(self, worker: int, task: SiteRelaxation) -> None:
        self.held[worker].append(task)
        self.most_held = max(self.most_held, *map(len, self.held.values()))

    def wait(self) -> list[Event]:
        if self._waiting:
            return [Ready(self._waiting.pop(), FINGERPRINT)]
        if self.deaths:
            return [self._death(self.deaths.popleft())]
        for worker, tasks in self.held.items():
            if any(task.key in self.deadly for task in tasks):
                return [self._death(worker)]
        assert self._function is not None
        events: list[Event] = []
        for worker, tasks in self.held.items():
            if tasks:
                outcome = self._function(tasks.pop(0), EMT())
                events.append(Done(worker, outcome))
        assert events, "nobody has anything to do"
        return events

    def _death(self, worker: int) -> Event:
        if len(self.held[worker]) == 1:
            self.solo.append(self.held[worker][0].key)
        self.held[worker] = []
        return Lost(worker, "told to")

    def stop(self) -> None:
        self.held.clear()
        self._waiting.clear()
