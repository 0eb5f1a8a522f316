"""What is done of a screening, what is left to do, and who is told."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from crack_md.workflows.relax.store import RelaxationRecord, ResultsStore
from crack_md.workflows.screening.relaxations import (
    Progress,
    RelaxOne,
    Report,
    Runner,
    Task,
)


@dataclass
class Ledger:
    """Which relaxations are done, which were there before, and who is told."""

    store: ResultsStore
    runner: Runner
    function: RelaxOne
    report: Report | None
    total: int = 0
    n_relaxed: int = 0
    n_reused: int = 0

    def complete(self, tasks: Iterable[Task]) -> None:
        """Do what is not in the store yet, each structure once, and store it."""
        waiting: dict[str, Task] = {}
        repeated: list[Task] = []
        outcomes = self.runner(self.function, self._missing(tasks, waiting, repeated))
        try:
            for record, atoms in outcomes:
                shown = {"adsorbate": record.adsorbate} if record.adsorbate else {}
                self.store.put(record, atoms, **shown)
                self._tell(waiting.pop(record.key), reused=False)
        finally:
            # a runner that is left in the middle has relaxations to end
            getattr(outcomes, "close", lambda: None)()
        for task in repeated:
            self._tell(task, reused=True)

    def _missing(
        self, tasks: Iterable[Task], waiting: dict[str, Task], repeated: list[Task]
    ) -> Iterator[Task]:
        """Yield what is to be done, when it is asked for."""
        for task in tasks:
            if self.store.record(task.key) is not None:
                self._tell(task, reused=True)
            elif task.key in waiting:
                repeated.append(task)
            else:
                waiting[task.key] = task
                yield task

    def record(self, key: str, slab: str) -> RelaxationRecord:
        """Return a finished relaxation; one structure may come under two names."""
        found = self.store.record(key)
        assert found is not None, "it was completed"
        return replace(found, slab=slab)

    def _tell(self, task: Task, *, reused: bool) -> None:
        self.n_reused += reused
        self.n_relaxed += not reused
        if self.report is None:
            return
        record = self.record(task.key, task.plan.name)
        self.report(
            Progress(
                self.n_relaxed + self.n_reused,
                self.total,
                record.slab,
                " ".join(part for part in (record.adsorbate, record.site) if part),
                record.status,
                reused,
            )
        )
