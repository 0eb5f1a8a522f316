"""Which relaxations of a screening are done, and which are left to do."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from crack_md.progress import ProgressEvent, Report
from crack_md.workflows.relax.store import RelaxationRecord, ResultsStore
from crack_md.workflows.screening.relaxations import (
    RelaxFunction,
    Runner,
    SiteRelaxation,
)


@dataclass
class RelaxationQueue:
    """Which relaxations are done, which were there before, and who is told."""

    store: ResultsStore
    runner: Runner
    function: RelaxFunction
    report: Report | None
    total: int = 0
    n_relaxed: int = 0
    n_reused: int = 0

    def complete(self, tasks: Iterable[SiteRelaxation]) -> None:
        """Do what is not in the store yet, each structure once, and store it."""
        waiting: dict[str, SiteRelaxation] = {}
        repeated: list[SiteRelaxation] = []
        outcomes = self.runner(
            self.function, self._yield_missing(tasks, waiting, repeated)
        )
        try:
            for record, atoms in outcomes:
                shown = {"adsorbate": record.adsorbate} if record.adsorbate else {}
                self.store.put(record, atoms, **shown)
                self._report(waiting.pop(record.key), reused=False)
        finally:
            # a runner that is left in the middle has relaxations to end
            getattr(outcomes, "close", lambda: None)()
        for task in repeated:
            self._report(task, reused=True)

    def _yield_missing(
        self,
        tasks: Iterable[SiteRelaxation],
        waiting: dict[str, SiteRelaxation],
        repeated: list[SiteRelaxation],
    ) -> Iterator[SiteRelaxation]:
        """Yield what is to be done, when it is asked for."""
        for task in tasks:
            if self.store.record(task.key) is not None:
                self._report(task, reused=True)
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

    def _report(self, task: SiteRelaxation, *, reused: bool) -> None:
        self.n_reused += reused
        self.n_relaxed += not reused
        if self.report is None:
            return
        record = self.record(task.key, task.plan.name)
        start = " ".join(part for part in (record.adsorbate, record.site) if part)
        self.report(
            ProgressEvent(
                self.n_relaxed + self.n_reused,
                self.total,
                f"{record.slab} {start or 'clean'}",
                record.status,
                reused,
            )
        )
