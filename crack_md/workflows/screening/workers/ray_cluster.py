"""Workers that are Ray actors: on this machine, or on a cluster."""

import os
import threading
import time
import traceback
from concurrent.futures import Future
from typing import Any

from crack_md.errors import CrackError, MissingDependencyError, WorkerError
from crack_md.workflows.screening.relaxations import (
    LoadModel,
    RelaxationOutcome,
    RelaxationWorker,
    RelaxFunction,
    SiteRelaxation,
    load_or_tell,
)
from crack_md.workflows.screening.workers.driver import (
    SPARE_SHARE,
    Done,
    Event,
    Lost,
    Ready,
)

START_LIMIT_S = 600.0
"""A cluster that grows on demand needs minutes for its first worker."""
POLL_S = 5.0
LOCAL_STORE_BYTES = 80 << 20
"""Size of the object store of a local cluster, near Ray's minimum."""


def connect(address: str, **options: Any) -> Any:
    """Return the module ``ray``, connected.

    Args:
        address: "local" starts a cluster on this machine, "auto" finds the one that
            this machine is part of; else ``host:port`` or ``ray://host:port``.
        options: of ``ray.init``.

    Raises:
        MissingDependencyError: Ray is not installed.
        WorkerError: there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError.of("ray", extra="ray", purpose="--ray") from error
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet |= {"include_dashboard": False, "object_store_memory": LOCAL_STORE_BYTES}
    try:
        ray.init(address=address, **quiet | options)
    except Exception as error:  # gRPC, sockets and versions raise many kinds
        reason = " ".join(str(error).split())[:300]
        if address == "local":
            text = f"cannot start Ray here: {reason}; is the machine too busy?"
            raise WorkerError(f"{text} --workers needs no Ray") from error
        raise WorkerError(
            f"cannot connect to a Ray cluster at '{address}': {reason}; start one with "
            "'ray start --head', or use 'local'"
        ) from error
    return ray


class RayActors:
    """Workers that are Ray actors, wherever the cluster has room for them.

    Args:
        ray: what `connect` returns.
        load: makes the potential of a worker; its code must be installed on all
            machines of the cluster.
        workers: how many; None for as many as the cluster has room for.
        width: relaxations at a time in each.
        gpus_per_worker: share of a GPU, such as 0.25 for four on each.
        cpus_per_worker: cores of each, above 0.

    Raises:
        WorkerError: the cluster has no room for any.
    """

    def __init__(
        self,
        ray: Any,
        load: LoadModel,
        *,
        workers: int | None = None,
        width: int = 1,
        gpus_per_worker: float = 0.0,
        cpus_per_worker: float = 1.0,
    ) -> None:
        self._ray, self.load, self.width = ray, load, width
        self.n_workers = workers or _room(ray, cpus_per_worker, gpus_per_worker)
        calls = width + max(1, width // SPARE_SHARE) + 1
        self._actor_class = ray.remote(Actor).options(
            num_cpus=cpus_per_worker,
            num_gpus=gpus_per_worker,
            max_concurrency=calls,
            max_restarts=0,  # the driver restarts them, and knows what they had
        )
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}
        """The worker that will answer, by what Ray calls the answer."""
        self._began: float | None = time.monotonic()
        """When the first worker was asked for; None when one has come."""

    def start(self, worker: int, function: RelaxFunction) -> None:
        """Ask for an actor; it comes when the cluster has room."""
        actor = self._actor_class.remote(self.load, worker, function, self.width)
        self._actors[worker] = actor
        self._calls[actor.ready.remote()] = worker

    def send(self, worker: int, task: SiteRelaxation) -> None:
        """Give a task to a worker."""
        self._calls[self._actors[worker].relax.remote(task)] = worker

    def wait(self) -> list[Event]:
        """Return what happened; wait until something does."""
        answered: list[Any] = []
        while not answered:
            if self._began and time.monotonic() - self._began > START_LIMIT_S:
                raise WorkerError(
                    f"no Ray worker has started in {START_LIMIT_S / 60:.0f} minutes; "
                    "is the cluster busy with other jobs? See 'ray status'"
                )
            # one that is there, then all others that are
            waiting = list(self._calls)
            answered, _ = self._ray.wait(waiting, timeout=POLL_S)
        answered, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return [self._event(call) for call in answered if call in self._calls]

    def _event(self, call: Any) -> Event:
        worker = self._calls.pop(call)
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            return self._lost(worker, error)
        if isinstance(answer, RelaxationOutcome):
            return Done(worker, answer)
        if isinstance(answer, CrackError):
            return Lost(worker, str(answer), answer)
        self._began = None
        return Ready(worker, answer)

    def _lost(self, worker: int, error: Exception) -> Lost:
        self._end(self._actors.pop(worker))
        self._calls = {c: w for c, w in self._calls.items() if w != worker}
        reason = " ".join(str(error).split())[:200]
        return Lost(worker, f"a Ray actor is gone ({reason})")

    def _end(self, actor: Any) -> None:
        self._ray.kill(actor, no_restart=True)

    def stop(self) -> None:
        """End all actors; the cluster stays."""
        for actor in self._actors.values():
            self._end(actor)
        self._actors.clear()
        self._calls.clear()


class Actor:
    """A worker of a Ray cluster; calls of `relax` wait in threads for their results."""

    def __init__(
        self, load: LoadModel, number: int, function: RelaxFunction, width: int
    ) -> None:
        self._answers: dict[str, Future[RelaxationOutcome]] = {}
        self._answer: str | CrackError
        potential = load_or_tell(load, number)
        if isinstance(potential, CrackError):
            self._answer = potential
            return
        self._answer = potential.fingerprint
        self._station = RelaxationWorker(
            potential, function, width=width, send_back=self._send_back
        )
        threading.Thread(target=self._work, daemon=True).start()

    def ready(self) -> str | CrackError:
        """Return the fingerprint of the model, or why there is none."""
        return self._answer

    def relax(self, task: SiteRelaxation) -> RelaxationOutcome:
        """Return what became of a task."""
        answer: Future[RelaxationOutcome] = Future()
        self._answers[task.key] = answer
        self._station.put(task)
        return answer.result()

    def _send_back(self, outcome: RelaxationOutcome) -> None:
        self._answers.pop(outcome.record.key).set_result(outcome)

    def _work(self) -> None:
        try:
            self._station.work()
        except BaseException:
            # calls would wait for ever; lost workers are replaced
            traceback.print_exc()
            os._exit(1)


def _room(ray: Any, cpus: float, gpus: float) -> int:
    """Return how many workers a cluster has room for."""
    needs = {"CPU": cpus, "GPU": gpus}
    has = {name: ray.cluster_resources().get(name, 0.0) for name in needs}
    # 1 GPU in shares of 0.1 makes 10 in spite of rounding
    room = min(int(has[name] / n + 1e-6) for name, n in needs.items() if n)
    if room < 1:
        raise WorkerError(
            f"the Ray cluster has {has['CPU']:g} cores and {has['GPU']:g} GPUs, and a "
            f"worker needs {cpus:g} and {gpus:g}; lower --gpus-per-worker, or give "
            "--workers if the cluster grows on demand"
        )
    return room
