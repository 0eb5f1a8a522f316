"""Who has which relaxation, with workers that die when they are told to."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from crack_md.errors import WorkerError
from crack_md.workflows.screening.plan import SlabPlan
from crack_md.workflows.screening.relaxations import RelaxationOutcome, SiteRelaxation
from crack_md.workflows.screening.workers.driver import MAX_LOSSES, Driver
from tests.workflows.screening.workers.potentials import FINGERPRINT, InTurn

N_TASKS = 50


def tasks(count: int = N_TASKS) -> Iterator[SiteRelaxation]:
    atoms = Atoms("Cu")
    for number in range(count):
        yield SiteRelaxation(
            f"{number}", SlabPlan("slab", "Cu", None), None, atoms, atoms
        )


def relax(
    task: SiteRelaxation, calculator: BaseCalculator, **_: object
) -> RelaxationOutcome:
    return RelaxationOutcome(replace(task.record, status="converged"), task.initial)


def statuses(backend: InTurn, count: int = N_TASKS) -> dict[str, str]:
    """Return the status of every task, each of which must come back once."""
    with Driver(backend, fingerprint=FINGERPRINT) as driver:
        found = [outcome.record for outcome in driver(relax, tasks(count))]
    assert sorted(r.key for r in found) == sorted(task.key for task in tasks(count))
    assert backend.held == {}
    return {record.key: record.status for record in found}


@pytest.mark.parametrize(("width", "most"), [(1, 2), (8, 10), (64, 50)])
def test_few_tasks_are_out_and_all_come_back(width: int, most: int) -> None:
    backend = InTurn(width=width)
    assert set(statuses(backend).values()) == {"converged"}
    assert backend.most_held == most
    assert backend.starts == [0, 1]


def test_workers_serve_one_round_after_the_other() -> None:
    backend = InTurn()
    with Driver(backend, fingerprint=FINGERPRINT) as driver:
        for _ in range(3):
            assert len(list(driver(relax, tasks()))) == N_TASKS
        assert backend.starts == [0, 1]
        list(driver(lambda task, calculator, **_: relax(task, calculator), tasks(1)))
        assert backend.starts == [0, 1, 0, 1]


def test_nothing_to_do_starts_nobody() -> None:
    backend = InTurn()
    assert statuses(backend, 0) == {}
    assert backend.starts == []


@pytest.mark.parametrize("deaths", [[0], [0, 1], [1, 1, 1], [0, 1] * 20])
def test_lost_tasks_begin_again(deaths: list[int]) -> None:
    backend = InTurn(width=4)
    backend.deaths.extend(deaths[:3])
    with Driver(backend, fingerprint=FINGERPRINT) as driver:
        found = []
        for outcome in driver(relax, tasks()):
            found.append(outcome.record)
            if len(found) in (5, 20, 49) and len(deaths) > 3:
                backend.deaths.extend(deaths[3:7])
        assert driver.n_lost >= min(len(deaths), 3)
    assert sorted(r.key for r in found) == sorted(task.key for task in tasks())
    assert {record.status for record in found} == {"converged"}


def test_a_deadly_task_takes_no_other_with_it() -> None:
    backend = InTurn(width=8)
    backend.deadly = {"17", "3"}
    found = statuses(backend)
    assert {key for key, status in found.items() if status == "failed"} == {"17", "3"}
    assert backend.solo.count("17") == backend.solo.count("3") == MAX_LOSSES - 1


def test_what_was_given_up_says_why() -> None:
    backend = InTurn()
    backend.deadly = {"0"}
    with Driver(backend, fingerprint=FINGERPRINT) as driver:
        (outcome,) = driver(relax, tasks(1))
    assert outcome.record.error == "4 workers were lost with it: told to"


def test_workers_that_end_before_they_are_ready() -> None:
    class Stillborn(InTurn):
        def wait(self):  # type: ignore[no-untyped-def]
            return [self._death(0)]

    with (
        Driver(Stillborn(), fingerprint=FINGERPRINT) as driver,
        pytest.raises(WorkerError, match=r"3 workers in a row .* told to; .*--workers"),
    ):
        list(driver(relax, tasks()))


def test_workers_with_another_model_are_refused() -> None:
    with (
        Driver(InTurn(), fingerprint="mine") as driver,
        pytest.raises(WorkerError, match="a worker has emt, and this process mine"),
    ):
        list(driver(relax, tasks()))


def test_leaving_in_the_middle_ends_the_workers() -> None:
    backend = InTurn()
    with Driver(backend, fingerprint=FINGERPRINT) as driver:
        outcomes = driver(relax, tasks())
        next(iter(outcomes))
        assert any(backend.held.values())
        outcomes.close()  # type: ignore[attr-defined]
        assert backend.held == {}
