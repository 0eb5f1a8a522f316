"""One worker: a model, and the relaxations that share its batches."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Literal, NamedTuple

from ase.calculators.calculator import BaseCalculator

from crack_md.calculators.concurrent import PAUSE, Pause, run_together
from crack_md.workflows.screening.relaxations import (
    RelaxationOutcome,
    RelaxFunction,
    Runner,
    SiteRelaxation,
)
from crack_md.workflows.surfaces.outcome import DomainDistance, neighbor_distance


class WorkerModel(NamedTuple):
    """What a worker needs of a model."""

    calculator: BaseCalculator
    distance: DomainDistance = neighbor_distance
    """How far a structure is from what the model knows."""
    fingerprint: str = ""
    """Equal where results are."""


LoadModel = Callable[[int], WorkerModel]
"""Makes the potential of a worker, in that worker, from its number."""


def batched_runner(calculator: BaseCalculator, *, width: int) -> Runner:
    """Return a runner that does ``width`` relaxations at a time, in shared batches.

    Args:
        calculator: `CrackCalculator`; others do one relaxation after the other.
        width: relaxations at a time.
    """

    def run(
        function: RelaxFunction, tasks: Iterable[SiteRelaxation]
    ) -> Iterator[RelaxationOutcome]:
        return _outcomes(function, tasks, calculator, width)

    return run


def _outcomes(
    function: RelaxFunction,
    tasks: Iterable[SiteRelaxation | Literal[Pause.PAUSE]],
    calculator: BaseCalculator,
    width: int,
) -> Iterator[RelaxationOutcome]:
    for _, outcome in run_together(function, tasks, calculator, width=width):
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome


class RelaxationWorker:
    """The relaxations of one worker; tasks are put in by another thread.

    Args:
        potential: of this worker.
        function: one relaxation.
        width: relaxations at a time.
        send_back: called with every outcome, in the thread that works.
    """

    def __init__(
        self,
        potential: WorkerModel,
        function: RelaxFunction,
        *,
        width: int,
        send_back: Callable[[RelaxationOutcome], None],
    ) -> None:
        self._calculator = potential.calculator
        self._relax = partial(function, distance=potential.distance)
        self._width, self._send_back = width, send_back
        self._inbox: SimpleQueue[SiteRelaxation] = SimpleQueue()
        self._n_running = 0

    def put(self, task: SiteRelaxation) -> None:
        """Accept a task, to be done when there is room for it."""
        self._inbox.put(task)

    def work(self) -> None:
        """Do what is put in, for ever."""
        for outcome in _outcomes(
            self._relax, self._tasks(), self._calculator, self._width
        ):
            self._n_running -= 1
            self._send_back(outcome)

    def _tasks(self) -> Iterator[SiteRelaxation | Literal[Pause.PAUSE]]:
        while True:
            if self._n_running and self._inbox.empty():
                yield PAUSE
                continue
            task = self._inbox.get()
            self._n_running += 1
            yield task
