"""Workers that are processes on this machine, each with a model of its own."""

import os
import signal
import threading
from multiprocessing.connection import Connection, wait

from crack_md.errors import CrackError
from crack_md.processes import (
    WorkerProcess,
    describe_exit,
    end_with_parent,
    start_process,
)
from crack_md.workflows.screening.relaxations import (
    LoadModel,
    RelaxationOutcome,
    RelaxationWorker,
    RelaxFunction,
    SiteRelaxation,
    load_or_tell,
)
from crack_md.workflows.screening.workers.driver import Done, Event, Lost, Ready

GRACE_S = 2.0
"""Seconds that a process may take to end before it is killed."""
Message = str | RelaxationOutcome | CrackError
"""A worker sends: it is ready, a relaxation has ended, the model cannot be loaded."""


class Processes:
    """Workers that are fresh processes: nothing is inherited but the environment.

    Args:
        load: makes the potential of a worker; importable by name.
        workers: how many.
        width: relaxations at a time in each.
    """

    def __init__(self, load: LoadModel, *, workers: int, width: int = 1) -> None:
        self.load, self.n_workers, self.width = load, workers, width
        self._workers: dict[int, WorkerProcess] = {}

    def start(self, worker: int, function: RelaxFunction) -> None:
        """Start a process."""
        self._workers[worker] = start_process(
            serve,
            self.load,
            worker,
            function,
            self.width,
            name=f"crack-md worker {worker}",
        )

    def send(self, worker: int, task: SiteRelaxation) -> None:
        """Give a task to a worker; one that is lost is noticed by `wait`."""
        try:
            self._workers[worker].connection.send(task)
        except OSError:
            return

    def wait(self) -> list[Event]:
        """Return what happened; wait until something does."""
        by_connection = {w.connection: number for number, w in self._workers.items()}
        return [
            self._event(by_connection[connection])
            for connection in wait(list(by_connection))
            if isinstance(connection, Connection)
        ]

    def _event(self, worker: int) -> Event:
        process, connection = self._workers[worker]
        try:
            message = connection.recv()
        except (EOFError, OSError):
            connection.close()
            process.join(GRACE_S)
            del self._workers[worker]
            return Lost(
                worker, f"a process ended with {describe_exit(process.exitcode)}"
            )
        if isinstance(message, str):
            return Ready(worker, message)
        if isinstance(message, CrackError):
            return Lost(worker, str(message), message)
        return Done(worker, message)

    def stop(self) -> None:
        """End all processes."""
        for process, _ in self._workers.values():
            process.terminate()
        for process, connection in self._workers.values():
            process.join(GRACE_S)
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()
        self._workers.clear()


def serve(
    connection: "Connection[Message, SiteRelaxation]",
    load: LoadModel,
    number: int,
    function: RelaxFunction,
    width: int,
) -> None:
    """Do relaxations for the process at the other end, as long as there is one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends what it started
    end_with_parent()
    potential = load_or_tell(load, number)
    if isinstance(potential, CrackError):
        connection.send(potential)
        return
    worker = RelaxationWorker(
        potential, function, width=width, send_back=connection.send
    )
    receiver = threading.Thread(target=_receive, args=(connection, worker), daemon=True)
    receiver.start()
    connection.send(potential.fingerprint)
    worker.work()


def _receive(
    connection: "Connection[Message, SiteRelaxation]", worker: RelaxationWorker
) -> None:
    """Take what comes at once: two ends that both wait to send would wait for ever."""
    while True:
        try:
            worker.put(connection.recv())
        except (EOFError, OSError):
            os._exit(1)
