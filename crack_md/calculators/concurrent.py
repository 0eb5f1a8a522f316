"""Many relaxations or simulations at a time: their calls share forward passes.

Each task runs in a thread of its own with an ordinary ASE calculator, so optimizers,
constraints and filters work as ever. The thread that consumes the results evaluates: as
soon as every running task waits for an answer, all of their structures go in one batch.

Nothing here knows PyTorch: workflows may use it, with any ASE calculator.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from queue import SimpleQueue
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, all_changes

from crack_md.calculators.batched import BatchCalculator, Results, Trajectory
from crack_md.errors import ConfigError, CrackError

Item = TypeVar("Item")

SHARED = ("metadata", "forces_kind", "model_sha256", "device", "ignored_changes")
"""What a task may want to know of the calculator."""


class TaskCalculator(Calculator):
    """The calculator of one task: it asks the server, and waits for the batch."""

    def __init__(self, task: "Task[Any]", calculator: BatchCalculator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.implemented_properties = list(calculator.implemented_properties)
        self._task, self._calculator = task, calculator
        for name in SHARED:
            if hasattr(calculator, name):
                setattr(self, name, getattr(calculator, name))

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` with all properties at once."""
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        self.results = {}
        assert self.atoms is not None, "ASE has just set it"
        self.results = self._task.ask(self.atoms)

    def _get_name(self) -> str:
        return str(getattr(self._calculator, "name", "crack"))

    def __deepcopy__(self, memo: dict[int, object]) -> "TaskCalculator":
        """Return another calculator of the same task, without results."""
        return TaskCalculator(self._task, self._calculator)

    def __reduce__(self) -> Any:
        """Refuse to be pickled: the server is in this process."""
        raise CrackError(
            "a calculator of run_together cannot be pickled; return structures with a "
            "SinglePointCalculator, or without calculator"
        )


class Stop(BaseException):
    """Ends a task from its calculator; no ``except Exception`` holds it back."""


class Request(NamedTuple):
    """A structure that a task waits for."""

    task: "Task[Any]"
    atoms: Atoms


class Ending(NamedTuple):
    """The last word of a task."""

    task: "Task[Any]"
    outcome: Any
    """What the function returned or raised."""
    is_fatal: bool
    """It raised what is no Exception: Ctrl-C, or the wish to exit."""


class Task(Generic[Item]):
    """A thread, and how it talks to the server."""

    def __init__(
        self, number: int, item: Item, inbox: SimpleQueue[Request | Ending]
    ) -> None:
        self.number, self.item = number, item
        self.trajectory = Trajectory()
        self._inbox = inbox
        self._replies: SimpleQueue[Results | BaseException] = SimpleQueue()
        self._has_ended = False
        self._is_stopped = False
        self.thread: threading.Thread | None = None

    def start(
        self, function: Callable[[Item, Any], Any], calculator: BatchCalculator
    ) -> None:
        """Begin to work, in a thread that does not keep the process alive."""
        self.thread = threading.Thread(
            target=self._work,
            args=(function, TaskCalculator(self, calculator)),
            name=f"run_together-{self.number}",
            daemon=True,
        )
        self.thread.start()

    def _work(
        self, function: Callable[[Item, Any], Any], calculator: TaskCalculator
    ) -> None:
        try:
            outcome, is_fatal = function(self.item, calculator), False
        except BaseException as error:
            outcome, is_fatal = error, not isinstance(error, Exception)
        self._has_ended = True
        self._inbox.put(Ending(self, outcome, is_fatal))

    def ask(self, atoms: Atoms) -> Results:
        """Return the results of a structure; called in the task's thread.

        Raises:
            CrackError: called by another thread, or after the task has ended.
        """
        if threading.current_thread() is not self.thread:
            when = "after the end" if self._has_ended else "outside the thread"
            raise CrackError(
                f"a calculator of run_together was used {when} of its task; use the "
                "calculator that was given to run_together instead"
            )
        if self._is_stopped:
            raise Stop
        self._inbox.put(Request(self, atoms))
        reply = self._replies.get()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def answer(self, reply: Results | BaseException) -> None:
        """Let a task that asked go on; called by the server."""
        self._replies.put(reply)

    def stop(self) -> None:
        """End the task as soon as it calls, or now if it waits."""
        self._is_stopped = True
        # also where nobody waits yet: the task may be about to ask
        self._replies.put(Stop())

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the task, but no longer than that."""
        assert self.thread is not None, "only tasks that were started are stopped"
        self.thread.join(timeout_s)


Result = TypeVar("Result")


class Pause(Enum):
    """What `items` may yield where there is nothing to do for now."""

    PAUSE = "nothing for now"


PAUSE = Pause.PAUSE
GRACE_S = 2.0
"""How long an interrupted run waits for tasks that are busy elsewhere."""


def run_together(
    function: Callable[[Item, Any], Result],
    items: Iterable[Item | Literal[Pause.PAUSE]],
    calculator: BatchCalculator | BaseCalculator,
    *,
    width: int = 64,
) -> Iterator[tuple[Item, Result | Exception]]:
    """Yield every item with ``function(item, calculator)``, or with its exception.

    Results come as tasks end, which need not be the order of the items; the next item
    is then taken. The batch of every round is fixed by the items alone, never by the
    timing of threads. It differs from that of another `width`, so results do by
    rounding. Closing the iterator, an error of the loop over it, or Ctrl-C ends all
    tasks at their next call of the calculator.

    Args:
        function: gets a calculator that is valid in its own thread until it returns. It
            must not wait for other tasks, nor draw from global random numbers.
        items: read lazily, one for each task that starts. Those that arrive over time
            may yield `PAUSE` while tasks run: those go on, and items are asked again
            after the next batch. Where none run they have to wait instead.
        calculator: `CrackCalculator`; another ASE calculator does one item after the
            other, in this thread.
        width: tasks at a time.

    Raises:
        ConfigError: a width below 1.
    """
    if width < 1:
        raise ConfigError(f"width is {width}; expected 1 or more tasks at a time")
    if isinstance(calculator, BatchCalculator):
        return _Server(function, calculator).run(items, width)
    return _one_by_one(function, items, calculator)


def _one_by_one(
    function: Callable[[Item, Any], Result],
    items: Iterable[Item | Literal[Pause.PAUSE]],
    calculator: BaseCalculator,
) -> Iterator[tuple[Item, Result | Exception]]:
    for item in items:
        if item is PAUSE:
            continue
        outcome: Result | Exception
        try:
            outcome = function(item, calculator)
        except Exception as error:  # the result of this task, as in the docstring
            outcome = error
        yield item, outcome


class _Server(Generic[Item, Result]):
    """Starts tasks, evaluates what they ask for, and hands out what they return."""

    def __init__(
        self, function: Callable[[Item, Any], Result], calculator: BatchCalculator
    ) -> None:
        self.function, self.calculator = function, calculator
        self.inbox: SimpleQueue[Request | Ending] = SimpleQueue()
        self.active: set[Task[Item]] = set()
        self.waiting: list[Request] = []

    def run(
        self, items: Iterable[Item | Literal[Pause.PAUSE]], width: int
    ) -> Iterator[tuple[Item, Result | Exception]]:
        """Yield what tasks return; see `run_together`."""
        remaining = enumerate(items)
        try:
            while self._fill(remaining, width):
                event = self.inbox.get()
                if isinstance(event, Request):
                    self.waiting.append(event)
                else:
                    self.active.remove(event.task)
                    if event.is_fatal:
                        raise event.outcome
                    yield event.task.item, event.outcome
                    self._fill(remaining, width)
                # a task has one request at most: then nobody is left to wait for
                if self.waiting and len(self.waiting) == len(self.active):
                    self._answer()
        finally:
            self._stop()

    def _fill(
        self, items: Iterator[tuple[int, Item | Literal[Pause.PAUSE]]], width: int
    ) -> bool:
        """Start tasks while there is room for them; return whether any are running."""
        while len(self.active) < width:
            number, item = next(items, (-1, PAUSE))
            if item is PAUSE:
                break
            task = Task(number, item, self.inbox)
            task.start(self.function, self.calculator)
            self.active.add(task)
        return bool(self.active)

    def _answer(self) -> None:
        """Evaluate all requests, in the order of the items, and let the tasks go on."""
        asked = sorted(self.waiting, key=lambda request: request.task.number)
        self.waiting = []
        replies: Sequence[Results | BaseException]
        try:
            replies = self.calculator.calculate_many(
                [request.atoms for request in asked],
                trajectories=[request.task.trajectory for request in asked],
            )
        except Exception as error:  # each task decides what it makes of it
            replies = [error] * len(asked)
        for request, reply in zip(asked, replies, strict=True):
            request.task.answer(reply)

    def _stop(self) -> None:
        """End the tasks that are left: there are some only if something went wrong."""
        for task in self.active:
            task.stop()
        deadline = time.monotonic() + GRACE_S
        for task in self.active:
            task.join(max(deadline - time.monotonic(), 0.0))
