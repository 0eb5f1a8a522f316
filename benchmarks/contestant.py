"""One engine in a contest: its settings, its worker, and what it has given up."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.engines import Engine
from benchmarks.peers.process import WorkerProcess


@dataclass(frozen=True)
class Settings:
    """How a contest is run."""

    device: str = "cpu"
    threads: int = 1
    rounds: int = 5
    round_s: float = 2.0
    """About how long an engine is called in one round."""
    limit_s: float = 300.0
    """For all calls of one engine and case; what takes longer is not run."""
    start_limit_s: float = 900.0
    """For loading a model, and for a first call, which may compile."""
    memory_limit: int | None = None
    """Bytes for one worker."""
    alone_from: int = 3000
    """Atoms from which on engines share a GPU no more: one after the other, then."""
    md_steps: int = 1000
    md_warm_up: int = 20
    logs: Path = Path("runs/speed/logs")


@dataclass
class Contestant:
    """An engine, its worker if there is one, and what it has given up."""

    engine: Engine
    settings: Settings
    worker: WorkerProcess | None = None
    cold_start: dict[str, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    prediction: dict[str, Any] = field(default_factory=dict)
    """Energies in eV and forces in eV/Å of the first structure."""
    pace: dict[str, float] = field(default_factory=dict)
    """Works and the quickest seconds per atom so far."""
    given_up: dict[str, str] = field(default_factory=dict)
    """Works and why larger cases of them are not tried."""

    def ask(self, do: str, *, timeout_s: float | None = None, **arguments: Any) -> Any:
        """Ask the worker, which is started if need be."""
        if self.worker is None or not self.worker.runs:
            self._start()
        assert self.worker is not None
        limit = self.settings.limit_s if timeout_s is None else timeout_s
        return self.worker.ask(do, timeout_s=limit, **arguments)

    def _start(self) -> None:
        settings = self.settings
        self.worker = self.engine.start(
            device=settings.device, threads=settings.threads, logs=settings.logs
        )
        answer = self.worker.ask(
            "load",
            timeout_s=settings.start_limit_s,
            options={"device": settings.device, **self.engine.options},
            threads=settings.threads,
            memory_limit=settings.memory_limit
            if settings.device == "cpu"
            else None,  # CUDA maps far more than it uses
        )
        passed = time.perf_counter() - self.worker.started
        if not self.cold_start:
            self.about = answer["about"]
            self.cold_start = {
                "import_s": passed - answer["load_s"],
                "load_s": answer["load_s"],
            }

    def stop(self) -> None:
        """End the worker."""
        if self.worker is not None:
            self.worker.stop()
            self.worker = None
