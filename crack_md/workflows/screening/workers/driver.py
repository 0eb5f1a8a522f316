"""The driver of many workers: hands out relaxations and replaces lost workers.

Few relaxations are out at any time: what a worker has in its batch, and a few more that
it takes up when one of those ends. A worker that is lost is replaced, and what it had
begins again: one at a time on a worker that has nothing else, so that a structure that
kills its worker takes no other with it, and after some attempts is given up.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from crack_md.errors import CrackError, WorkerError
from crack_md.workflows.screening.relaxations import (
    RelaxationOutcome,
    RelaxFunction,
    SiteRelaxation,
)

MAX_LOSSES = 4
"""Workers that may be lost with one relaxation before it is given up."""
MAX_FAILED_STARTS = 3
"""Workers in a row that may end before they are ready."""
SPARE_SHARE = 4
"""A quarter of a batch, but at least one task, waits at the worker."""


class Ready(NamedTuple):
    """A worker has loaded its model."""

    worker: int
    fingerprint: str


class Done(NamedTuple):
    """A worker has ended a relaxation."""

    worker: int
    outcome: RelaxationOutcome


class Lost(NamedTuple):
    """A worker is no more."""

    worker: int
    reason: str
    error: CrackError | None = None
    """What kept it from starting, where another would fail for the same reason."""


Event = Ready | Done | Lost


class Backend(Protocol):
    """Workers of one kind, by number."""

    n_workers: int
    width: int
    """Relaxations at a time in each."""

    def start(self, worker: int, function: RelaxFunction) -> None:
        """Start a worker, in place of a lost one if there was any."""
        ...

    def send(self, worker: int, task: SiteRelaxation) -> None:
        """Give a task to a worker that is ready."""
        ...

    def wait(self) -> list[Event]:
        """Return what happened; wait until something does."""
        ...

    def stop(self) -> None:
        """End all workers at once."""
        ...


@dataclass
class _WorkerState:
    """What the driver knows of a worker."""

    is_ready: bool = False
    is_alone: bool = False
    """Its task gets no company: it was lost before."""
    tasks: dict[str, SiteRelaxation] = field(default_factory=dict)


class Driver:
    """A runner with workers; leaving its context ends them.

    Args:
        backend: the workers.
        fingerprint: of the potential that all of them must have.
    """

    def __init__(self, backend: Backend, *, fingerprint: str = "") -> None:
        self.backend, self.fingerprint = backend, fingerprint
        self.n_lost = 0
        """Workers lost so far."""
        self._capacity = backend.width + max(1, backend.width // SPARE_SHARE)
        self._function: RelaxFunction | None = None
        self._states: dict[int, _WorkerState] = {}
        self._again: deque[SiteRelaxation] = deque()
        self._losses: Counter[str] = Counter()
        self._n_failed_starts = 0

    def __enter__(self) -> Self:
        """Return the runner; workers start with the first task."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all workers."""
        self.stop()

    def stop(self) -> None:
        """End all workers, and forget what they were doing."""
        self.backend.stop()
        self._states.clear()
        self._again.clear()
        self._function = None

    def __call__(
        self, function: RelaxFunction, tasks: Iterable[SiteRelaxation]
    ) -> Iterator[RelaxationOutcome]:
        """Yield outcomes as they come.

        Raises:
            WorkerError: workers do not start, or are not what they should be.
            CrackError: what keeps workers from loading the model.
        """
        remaining = iter(tasks)
        first = next(remaining, None)
        if first is None:
            return
        self._again.append(first)
        try:
            self._start(function)
            while self._send_tasks(remaining):
                for event in self.backend.wait():
                    yield from self._outcomes(event)
        except BaseException:
            self.stop()
            raise

    def _start(self, function: RelaxFunction) -> None:
        if self._function is not function and self._states:
            again = list(self._again)
            self.stop()
            self._again.extend(again)
        self._function = function
        for worker in range(self.backend.n_workers):
            if worker not in self._states:
                self._states[worker] = _WorkerState()
                self.backend.start(worker, function)

    def _send_tasks(self, remaining: Iterator[SiteRelaxation]) -> bool:
        """Give out tasks while there is room; return whether any are out or left."""
        is_fed = True
        while is_fed:
            is_fed = False
            # one each in turn: what is left at the end is shared
            for worker, state in self._states.items():
                task = self._task_for(state, remaining)
                if task is not None:
                    state.tasks[task.key] = task
                    self.backend.send(worker, task)
                    is_fed = True
        return bool(self._again) or any(state.tasks for state in self._states.values())

    def _task_for(
        self, state: _WorkerState, remaining: Iterator[SiteRelaxation]
    ) -> SiteRelaxation | None:
        if not state.is_ready or (state.is_alone and state.tasks):
            return None
        if self._again and not state.tasks:
            task = self._again.popleft()
            state.is_alone = task.key in self._losses
            return task
        state.is_alone = False
        if len(state.tasks) >= self._capacity:
            return None
        return next(remaining, None)

    def _outcomes(self, event: Event) -> Iterator[RelaxationOutcome]:
        state = self._states[event.worker]
        match event:
            case Ready():
                self._check(event.fingerprint)
                state.is_ready, self._n_failed_starts = True, 0
            case Done():
                key = event.outcome.record.key
                del state.tasks[key]
                self._losses.pop(key, None)
                yield event.outcome
            case Lost():
                yield from self._replace_worker(event, state)

    def _check(self, fingerprint: str) -> None:
        if fingerprint != self.fingerprint:
            raise WorkerError(
                f"a worker has {fingerprint or 'no model'}, and this process "
                f"{self.fingerprint or 'none'}; install the same version and give all "
                "machines the same model file"
            )

    def _replace_worker(
        self, event: Lost, state: _WorkerState
    ) -> Iterator[RelaxationOutcome]:
        """Start another worker; yield what is given up."""
        if event.error is not None:
            raise event.error
        self.n_lost += 1
        if not state.is_ready:
            self._n_failed_starts += 1
            if self._n_failed_starts >= MAX_FAILED_STARTS:
                raise WorkerError(
                    f"{self._n_failed_starts} workers in a row ended before they were "
                    f"ready: {event.reason}; often memory is short: try fewer --workers"
                )
        for task in state.tasks.values():
            self._losses[task.key] += 1
            if self._losses[task.key] < MAX_LOSSES:
                self._again.append(task)
                continue
            text = f"{MAX_LOSSES} workers were lost with it: {event.reason}"
            yield RelaxationOutcome(replace(task.record, error=text), task.initial)
        self._states[event.worker] = _WorkerState()
        assert self._function is not None, "workers are lost after they were started"
        self.backend.start(event.worker, self._function)
