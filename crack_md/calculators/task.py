"""A task of `run_together`: its thread, its calculator, and what it sends."""

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from crack_md.calculators.batched import BatchCalculator, Results, Trajectory
from crack_md.errors import CrackError

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
