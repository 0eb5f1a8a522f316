"""The relaxations of a screening: what one is, which are left to do, and where.

`relax_site` does one relaxation and never raises; a `Runner` decides where it is done
and how several share a calculator. The one here does them one after the other; those in
`crack_md.workflows.screening.workers` use batches, processes and clusters. A runner is
given the function and the tasks, passes the function a calculator, and yields what it
returns, in any order. It takes a task only when it has room for one, because there may
be a million. `RelaxationQueue` gives it what the store does not have yet.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from crack_md.calculators.concurrent import PAUSE, Pause, run_together
from crack_md.errors import CrackError, WorkerError
from crack_md.progress import ProgressEvent, Report
from crack_md.workflows.relax.relax import RelaxResult, relax_atoms
from crack_md.workflows.relax.store import RelaxationRecord, ResultsStore
from crack_md.workflows.screening.plan import ScreenSettings, SlabPlan
from crack_md.workflows.surfaces.adsorbates import Placement
from crack_md.workflows.surfaces.outcome import (
    DISQUALIFYING,
    DomainDistance,
    adsorbate_anomalies,
    find_final_site,
    neighbor_distance,
)

FARTHEST_DISTANCE = 999.0
"""What an infinite distance is stored as."""


@dataclass(frozen=True, eq=False)
class SiteRelaxation:
    """One relaxation that is to be done."""

    key: str
    plan: SlabPlan
    start: Placement | None
    """None for the clean slab."""
    initial: Atoms
    clean: Atoms
    """The slab alone, relaxed where the model can; the surface is compared with it."""

    @property
    def record(self) -> RelaxationRecord:
        """Return what is known of it beforehand."""
        empty = RelaxationRecord(self.key, self.plan.name, "", "failed")
        if self.start is None:
            return empty
        return replace(
            empty,
            site=self.start.label,
            adsorbate=self.start.adsorbate.name,
            azimuth_deg=self.start.azimuth_deg,
        )


class RelaxationOutcome(NamedTuple):
    """What became of a task; the record carries its key."""

    record: RelaxationRecord
    atoms: Atoms


RelaxFunction = Callable[..., RelaxationOutcome]
"""Called with a task and a calculator; ``distance=`` replaces the bound one."""
Runner = Callable[
    [RelaxFunction, Iterable[SiteRelaxation]], Iterable[RelaxationOutcome]
]


def serial_runner(calculator: BaseCalculator) -> Runner:
    """Return a runner that does one relaxation after the other."""

    def run(
        function: RelaxFunction, tasks: Iterable[SiteRelaxation]
    ) -> Iterator[RelaxationOutcome]:
        return (function(task, calculator) for task in tasks)

    return run


def relax_site(
    task: SiteRelaxation,
    calculator: BaseCalculator,
    *,
    settings: ScreenSettings,
    direct_forces: bool,
    distance: DomainDistance,
) -> RelaxationOutcome:
    """Return the relaxed structure and what is to be said about it.

    An error of any kind becomes a record with the status ``failed``: one bad site must
    not end a night's screening.
    """
    try:
        # what a calculator keeps of the last structure, such as neighbor lists, would
        # decide in which order it sums, and with it the last bits
        getattr(calculator, "reset", lambda: None)()
        result = relax_atoms(
            task.initial,
            calculator,
            settings=settings.relaxation(direct_forces=direct_forces),
        )
        return RelaxationOutcome(_judge(task, result, distance), result.atoms)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return RelaxationOutcome(replace(task.record, error=text), task.initial)


def _judge(
    task: SiteRelaxation, result: RelaxResult, distance: DomainDistance
) -> RelaxationRecord:
    """Return the record of a relaxation that ended, anomalies included."""
    found: list[str] = []
    notes: dict[str, Any] = {}
    if task.start is not None and task.plan.slab is not None:
        found += adsorbate_anomalies(
            result.atoms,
            initial=task.initial,
            clean=task.clean,
            count=len(task.start.sites),
        )
        sites = task.plan.sites[task.start.adsorbate.binding]
        end = find_final_site(
            result.atoms, slab=task.plan.slab, start=task.start, sites=sites
        )
        on_surface = "desorbed" not in found
        notes = {
            "final_site": end.site if on_surface else None,
            "migrated": end.migrated and on_surface and "intercalated" not in found,
            "height": end.height,
            "final_coordination": end.coordination,
            "final_elements": end.elements,
        }
    far, reason = distance(result.atoms)
    if far > 1:
        found.append("out_of_domain")
    worst = next((name for name in DISQUALIFYING if name in found), None)
    found += ["site_migrated"] if notes.get("migrated") else []
    found += [result.status] if result.status != "converged" else []
    return replace(
        task.record,
        status=worst or result.status,
        energy=result.energy,
        max_force=result.max_force,
        n_steps=result.n_steps,
        stalled_at=result.stalled_at,
        anomalies=",".join(found),
        domain_distance=min(far, FARTHEST_DISTANCE),
        error=reason if worst == "out_of_domain" else "",
        **notes,
    )


def bind_settings(
    settings: ScreenSettings, *, direct_forces: bool, distance: DomainDistance
) -> RelaxFunction:
    """Return `relax_site` with its settings; it crosses process boundaries."""
    return partial(
        relax_site, settings=settings, direct_forces=direct_forces, distance=distance
    )


@dataclass
class RelaxationQueue:
    """The relaxations of a screening: those done, those stored before, those left."""

    store: ResultsStore
    runner: Runner
    function: RelaxFunction
    report: Report | None
    total: int = 0
    """Of this part: of the slabs as given, then of what is compared with them."""
    done: int = 0
    """Of this part."""
    n_relaxed: int = 0
    n_reused: int = 0

    def begin_part(self, total: int) -> None:
        """Start to count again: what comes next was not known before."""
        self.total, self.done = total, 0

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
        self.done += 1
        if self.report is None:
            return
        record = self.record(task.key, task.plan.name)
        start = " ".join(part for part in (record.adsorbate, record.site) if part)
        self.report(
            ProgressEvent(
                self.done,
                self.total,
                f"{record.slab} {start or 'clean'}",
                record.status,
                reused,
            )
        )


class WorkerModel(NamedTuple):
    """What a worker needs of a model."""

    calculator: BaseCalculator
    distance: DomainDistance = neighbor_distance
    """How far a structure is from what the model knows."""
    fingerprint: str = ""
    """Equal where results are."""


LoadModel = Callable[[int], WorkerModel]
"""Makes the potential of a worker, in that worker, from its number."""


def load_or_tell(load: LoadModel, number: int) -> WorkerModel | CrackError:
    """Return the potential of a worker, or the error to send where there is none."""
    try:
        return load(number)
    except CrackError as error:
        return error
    except Exception as error:
        return WorkerError(f"{type(error).__name__}: {error}")


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
