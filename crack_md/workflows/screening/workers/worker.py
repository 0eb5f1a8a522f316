"""Where relaxations are done: a model, and as many structures at a time as it takes."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Literal, NamedTuple

from ase.calculators.calculator import BaseCalculator

from crack_md.calculators.concurrent import PAUSE, Pause, run_together
from crack_md.workflows.screening.relaxations import Outcome, RelaxOne, Runner, Task
from crack_md.workflows.surfaces.outcome import DomainDistance, neighbor_distance


class Potential(NamedTuple):
    """What a worker needs of a model."""

    calculator: BaseCalculator
    distance: DomainDistance = neighbor_distance
    """How far a structure is from what the model knows."""
    fingerprint: str = ""
    """Equal where results are."""


Load = Callable[[int], Potential]
"""Makes the potential of a worker, in that worker, from its number."""


def together(calculator: BaseCalculator, *, width: int) -> Runner:
    """Return a runner that does so many relaxations at a time, in shared batches.

    Args:
        calculator: `CrackCalculator`; others do one relaxation after the other.
        width: relaxations at a time.
    """

    def run(function: RelaxOne, tasks: Iterable[Task]) -> Iterator[Outcome]:
        return _outcomes(function, tasks, calculator, width)

    return run


def _outcomes(
    function: RelaxOne,
    tasks: Iterable[Task | Literal[Pause.PAUSE]],
    calculator: BaseCalculator,
    width: int,
) -> Iterator[Outcome]:
    for _, outcome in run_together(function, tasks, calculator, width=width):
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome


class Station:
    """The relaxations of one worker; tasks are put in by another thread.

    Args:
        potential: of this worker.
        function: one relaxation.
        width: relaxations at a time.
        hand_on: called with every outcome, in the thread that works.
    """

    def __init__(
        self,
        potential: Potential,
        function: RelaxOne,
        *,
        width: int,
        hand_on: Callable[[Outcome], None],
    ) -> None:
        self._calculator = potential.calculator
        self._relax = partial(function, distance=potential.distance)
        self._width, self._hand_on = width, hand_on
        self._inbox: SimpleQueue[Task] = SimpleQueue()
        self._n_running = 0

    def put(self, task: Task) -> None:
        """Accept a task, to be done when there is room for it."""
        self._inbox.put(task)

    def work(self) -> None:
        """Do what is put in, for ever."""
        for outcome in _outcomes(
            self._relax, self._tasks(), self._calculator, self._width
        ):
            self._n_running -= 1
            self._hand_on(outcome)

    def _tasks(self) -> Iterator[Task | Literal[Pause.PAUSE]]:
        while True:
            if self._n_running and self._inbox.empty():
                yield PAUSE
                continue
            task = self._inbox.get()
            self._n_running += 1
            yield task
