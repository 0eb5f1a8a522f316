"""Tasks that run together end like tasks that run alone, whatever others do."""

import contextlib
import copy
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import ase
import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS

from crack_md.calculators import CrackCalculator, run_together
from crack_md.calculators import concurrent as concurrent_module
from crack_md.calculators.concurrent import PAUSE
from crack_md.errors import ConfigError, CrackError, StructureError
from tests.calculators.springs import Springs

Calculator = Any
LIMIT_S = 60
"""A deadlock is what lasts longer; everything here takes seconds."""


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while task_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert task_threads() == []


def task_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("run_together")]


def all_of(outcomes: Iterator[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return the outcomes by item; a deadlock fails the test instead of hanging."""
    found: dict[Any, Any] = {}
    errors: list[BaseException] = []

    def consume() -> None:
        try:
            found.update(outcomes)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    assert not thread.is_alive(), "deadlock"
    if errors:
        raise errors[0]
    return found


def ask(calculator: Calculator, item: Any, *, x: float = 1.0, **info: Any) -> float:
    """Return the energy of an atom at a distance x from the origin of its spring."""
    atoms = ase.Atoms("O", [[x, 0, 0]], info={"item": item, **info})
    atoms.calc = calculator
    return float(atoms.get_potential_energy())


# ----------------------------------------------------------------- the same results


def slab_task(number: int) -> tuple[ase.Atoms, Any]:
    """Return a strained, rattled slab or bulk, and what is to be relaxed by what."""
    symbol = ("Pt", "Pd", "Au", "Ag", "Cu")[number % 5]
    optimizer = (LBFGS, BFGS, FIRE, LBFGS)[number % 4]
    if number % 4 == 3:
        atoms = bulk(symbol) * (1, 1, 1 + number % 2)
        atoms.set_cell(atoms.cell.array * 1.03, scale_atoms=True)
    else:
        atoms = fcc111(symbol, (1, 1, 2 + number % 3), vacuum=5.0, periodic=True)
        atoms.set_constraint(FixAtoms([0]))
    atoms.rattle(0.05, seed=number)
    return atoms, optimizer


def relax_slab(number: int, calculator: Calculator) -> tuple[float, int, np.ndarray]:
    atoms, optimizer = slab_task(number)
    atoms.calc = calculator
    target = FrechetCellFilter(atoms) if number % 4 == 3 else atoms
    run = optimizer(target, logfile=None)
    run.run(fmax=0.05, steps=25)
    return atoms.get_potential_energy(), run.nsteps, atoms.positions


def test_relaxations_end_where_they_end_alone() -> None:
    calculator = CrackCalculator("default", device="cpu", dtype="float64")
    sizes: list[int] = []
    calculate_many = calculator.calculate_many

    def counted(structures: Any, *rest: Any, **options: Any) -> Any:
        sizes.append(len(structures))
        return calculate_many(structures, *rest, **options)

    calculator.calculate_many = counted  # type: ignore[method-assign]
    together = all_of(run_together(relax_slab, range(20), calculator, width=20))
    n_batches, n_calls = len(sizes), sum(sizes)
    alone = {number: relax_slab(number, calculator) for number in range(20)}
    for number, (energy, n_steps, positions) in alone.items():
        assert together[number][0] == pytest.approx(energy, abs=1e-6)
        assert together[number][1] == n_steps
        np.testing.assert_allclose(together[number][2], positions, atol=1e-5)
    assert max(n_steps for _, n_steps, _ in alone.values()) > 10
    assert n_calls > 4 * n_batches
    assert n_batches <= 30


# ------------------------------------------------------------------------- batching


def test_every_running_task_is_in_every_batch() -> None:
    springs = Springs()

    def task(item: int, calculator: Calculator) -> float:
        return sum(ask(calculator, item, x=step) for step in range(1, 4))

    found = all_of(run_together(task, range(5), springs, width=3))
    assert found == dict.fromkeys(range(5), (1 + 4 + 9) / 2)
    assert springs.batches == [[0, 1, 2]] * 3 + [[3, 4]] * 3


def test_the_next_item_takes_the_place_of_one_that_ended() -> None:
    springs = Springs()

    def task(item: int, calculator: Calculator) -> None:
        for step in range(1, 2 + item):
            ask(calculator, item, x=step)

    all_of(run_together(task, range(4), springs, width=2))
    assert springs.batches == [[0, 1], [1, 2], [2, 3], [2, 3], [3], [3]]


def test_two_hundred_tasks_through_a_width_of_eight() -> None:
    springs = Springs()

    def task(item: int, calculator: Calculator) -> float:
        atoms = ase.Atoms("O2", [[1, 0, 0], [0, item / 100, 0]], info={"item": item})
        atoms.calc = calculator
        LBFGS(atoms, logfile=None).run(fmax=1e-4, steps=100)
        return float(np.abs(atoms.positions).max())

    found = all_of(run_together(task, iter(range(200)), springs, width=8))
    assert sorted(found) == list(range(200))
    assert max(found.values()) < 1e-4
    assert max(map(len, springs.batches)) == 8
    assert springs.n_calls > 7 * len(springs.batches)


def test_items_are_taken_only_when_there_is_room() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(10):
            taken.append(item)
            yield item

    with contextlib.closing(
        run_together(lambda *_: None, items(), Springs(), width=3)
    ) as run:
        assert taken == []
        next(run)
        assert len(taken) == 3


def test_items_that_arrive_late_join_those_that_run() -> None:
    springs = Springs()

    def items() -> Iterator[Any]:
        yield 1
        while len(springs.batches) < 6:
            yield PAUSE
        yield 2

    def task(item: int, calculator: Calculator) -> None:
        for step in range(10):
            ask(calculator, item, x=step)

    all_of(run_together(task, items(), springs, width=2))
    assert springs.batches == [[1]] * 6 + [[1, 2]] * 4 + [[2]] * 6


def test_other_calculators_skip_pauses() -> None:
    found = list(run_together(ask_cell, [1, PAUSE, 2], EMT(), width=2))
    assert [item for item, _ in found] == [1, 2]


def ask_cell(item: int, calculator: Calculator) -> float:
    atoms = bulk("Cu") * (1, 1, item)
    atoms.calc = calculator
    return float(atoms.get_potential_energy())


def test_timing_does_not_change_the_batches() -> None:
    def task(item: int, calculator: Calculator) -> None:
        for step in range(1, 2 + item % 4):
            time.sleep(random.random() * 2e-3)
            ask(calculator, item, x=step)
        time.sleep(random.random() * 2e-3)

    runs = [Springs() for _ in range(3)]
    for springs in runs:
        all_of(run_together(task, range(30), springs, width=6))
    assert runs[0].batches == runs[1].batches == runs[2].batches


def test_random_delays_never_end_in_a_deadlock() -> None:
    """Some never call, some catch errors and go on, some take long, some fail."""
    springs = Springs()

    def task(item: int, calculator: Calculator) -> int:
        chance = random.Random(item)
        calls = 0
        for _ in range(chance.choice([0, 0, 1, 3, 30])):
            if chance.random() < 0.5:
                time.sleep(chance.random() * 2e-3)
            try:
                ask(calculator, item, x=chance.random(), broken=chance.random() < 0.2)
                calls += 1
            except StructureError:
                calls += 1
        if chance.random() < 0.1:
            raise ValueError(item)
        return calls

    found = all_of(run_together(task, range(400), springs, width=16))
    assert len(found) == 400
    values = [value for value in found.values() if isinstance(value, int)]
    assert 320 < len(values) < 400
    assert all(isinstance(v, int | ValueError) for v in found.values())


# ------------------------------------------------------------------------- failures


def test_a_failure_is_the_result_of_its_task_alone() -> None:
    def task(item: int, calculator: Calculator) -> float:
        if item == 2:
            raise ZeroDivisionError("before any call")
        energy = ask(calculator, item)
        if item == 3:
            raise KeyError("after a call")
        return energy + ask(calculator, item, x=2, broken=item == 4)

    found = all_of(run_together(task, range(8), Springs(), width=4))
    assert isinstance(found[2], ZeroDivisionError)
    assert isinstance(found[3], KeyError)
    assert isinstance(found[4], StructureError)
    assert [found[item] for item in (0, 1, 5, 6, 7)] == [0.5 + 2.0] * 5


def test_a_failed_call_leaves_no_stale_results() -> None:
    def task(item: int, calculator: Calculator) -> float:
        atoms = ase.Atoms("O", [[1, 0, 0]])
        atoms.calc = calculator
        atoms.get_potential_energy()
        atoms.info["broken"] = True
        atoms.positions[0, 0] = 2
        for _ in range(2):
            with pytest.raises(StructureError):
                atoms.get_potential_energy()
        ask(calculator, item)
        with pytest.raises(StructureError):
            calculator.calculate(atoms)
        assert calculator.results == {}
        atoms.info["broken"] = False
        return float(atoms.get_potential_energy())

    assert all_of(run_together(task, range(3), Springs())) == dict.fromkeys(range(3), 2)


def test_an_evaluator_that_fails_is_an_error_of_the_tasks_that_asked() -> None:
    springs = Springs()

    def fail_once() -> None:
        if len(springs.batches) == 1:
            springs.batches.append([])
            raise RuntimeError("the driver is gone")

    springs.before_batch = fail_once

    def task(item: int, calculator: Calculator) -> float:
        return ask(calculator, item) + (ask(calculator, item, x=2) if item < 2 else 0)

    found = all_of(run_together(task, range(4), springs, width=3))
    assert [type(found[item]) for item in range(4)] == [
        RuntimeError,
        RuntimeError,
        float,
        RuntimeError,
    ]


def test_items_that_fail_end_the_run() -> None:
    def items() -> Iterable[int]:
        yield 0
        raise OSError("the file ends here")

    with pytest.raises(OSError, match="ends here"):
        all_of(run_together(ask_item, items(), Springs()))


def ask_item(item: int, calculator: Calculator) -> float:
    return ask(calculator, item)


# ----------------------------------------------------------------------------- ends


def endless(item: int, calculator: Calculator) -> None:
    step = 0
    while True:
        step += 1
        with contextlib.suppress(Exception):  # as careless code does
            ask(calculator, item, x=step)


def test_an_interrupt_ends_all_tasks() -> None:
    springs = Springs()

    def interrupt() -> None:
        if len(springs.batches) == 5:
            raise KeyboardInterrupt

    springs.before_batch = interrupt
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        all_of(run_together(endless, range(100), springs, width=16))
    assert time.monotonic() - begin < concurrent_module.GRACE_S
    assert task_threads() == []


def test_tasks_that_compute_while_they_end_are_ended_again() -> None:
    n_ends = []

    def task(item: int, calculator: Calculator) -> int:
        if item == 0:
            return ask_item(item, calculator)
        try:
            return endless(item, calculator)
        finally:
            n_ends.append(item)
            endless(item, calculator)

    with contextlib.closing(run_together(task, range(4), Springs())) as run:
        assert next(run) == (0, 0.5)
    assert sorted(n_ends) == [1, 2, 3]
    assert task_threads() == []


def test_a_task_that_wants_to_exit_ends_the_run() -> None:
    def task(item: int, calculator: Calculator) -> None:
        if item == 3:
            sys.exit(7)
        endless(item, calculator)

    with pytest.raises(SystemExit):
        all_of(run_together(task, range(100), Springs(), width=8))
    assert task_threads() == []


def test_leaving_the_loop_ends_all_tasks() -> None:
    def task(item: int, calculator: Calculator) -> int:
        return item if item == 0 else endless(item, calculator)

    with contextlib.closing(run_together(task, range(50), Springs(), width=8)) as run:
        assert next(run) == (0, 0)
        assert len(task_threads()) == 7
    assert task_threads() == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_is_prompt_even_where_tasks_are_busy_elsewhere() -> None:
    code = """
        import os, signal, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it
        from crack_md.calculators import run_together
        from tests.calculators.springs import Springs
        def task(item, calculator):
            os.write(1, b".")
            time.sleep(1000)
        list(run_together(task, range(4), Springs(), width=4))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.read(4) == "...."  # all four have started
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert errors.strip().endswith("KeyboardInterrupt")
    assert "Fatal" not in errors


# ---------------------------------------------------------------------- calculators


def test_tasks_see_what_the_calculator_is() -> None:
    springs = Springs()

    def task(item: int, calculator: Calculator) -> tuple[Any, ...]:
        names = ("implemented_properties", "metadata", "forces_kind", "name")
        return tuple(getattr(calculator, name) for name in names)

    (found,) = all_of(run_together(task, [0], springs)).values()
    assert found == (springs.implemented_properties, "springs", "gradient", "springs")


def test_calculators_are_of_use_in_their_task_only() -> None:
    kept = []

    def task(item: int, calculator: Calculator) -> None:
        ask(calculator, item)
        kept.append(calculator)
        if item == 0:
            return
        while len(kept) < 2:
            time.sleep(1e-3)
        neighbor = kept[1 - kept.index(calculator)]
        with pytest.raises(CrackError, match=r"(outside the thread|after the end) of"):
            ask(neighbor, item, x=2)

    found = all_of(run_together(task, range(2), Springs()))
    assert found == {0: None, 1: None}
    with pytest.raises(CrackError, match="after the end of its task"):
        ask(kept[0], 0, x=3)


def test_a_calculator_of_a_task_that_still_runs_is_refused_elsewhere() -> None:
    def task(item: int, calculator: Calculator) -> str:
        raised: list[Exception] = []

        def use() -> None:
            try:
                ask(calculator, item)
            except CrackError as error:
                raised.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        return str(raised[0])

    (found,) = all_of(run_together(task, [0], Springs())).values()
    assert "used outside the thread of its task" in found


def test_results_can_be_read_after_the_end() -> None:
    def task(item: int, calculator: Calculator) -> ase.Atoms:
        atoms = ase.Atoms("O", [[2, 0, 0]])
        atoms.calc = calculator
        atoms.get_potential_energy()
        return atoms

    (atoms,) = all_of(run_together(task, [0], Springs())).values()
    assert atoms.get_potential_energy() == 2.0
    atoms.positions[0, 0] = 1
    with pytest.raises(CrackError, match="after the end"):
        atoms.get_potential_energy()


def test_calculators_copy_but_do_not_pickle() -> None:
    def task(item: int, calculator: Calculator) -> float:
        atoms = ase.Atoms("O", [[2, 0, 0]])
        atoms.calc = calculator
        atoms.get_potential_energy()
        with pytest.raises(CrackError, match="cannot be pickled"):
            pickle.dumps(atoms)
        twin = copy.deepcopy(atoms)
        assert twin.calc is not calculator
        twin.positions[0, 0] = 4
        return float(twin.get_potential_energy())

    assert all_of(run_together(task, range(3), Springs())) == dict.fromkeys(range(3), 8)


def test_tasks_may_run_tasks() -> None:
    def task(item: int, calculator: Calculator) -> float:
        return sum(value for _, value in run_together(ask_item, range(3), calculator))

    assert all_of(run_together(task, range(4), Springs())) == dict.fromkeys(
        range(4), 1.5
    )


# ------------------------------------------------------------------ other calculators


def test_other_calculators_do_one_item_after_the_other() -> None:
    threads = set()

    def task(item: int, calculator: Calculator) -> float:
        threads.add(threading.current_thread())
        if item == 1:
            raise ValueError("this one")
        atoms = bulk("Cu") * (1, 1, 1 + item)
        atoms.calc = calculator
        return float(atoms.get_potential_energy()) / len(atoms)

    found = list(run_together(task, range(4), EMT(), width=3))
    assert [item for item, _ in found] == [0, 1, 2, 3]
    assert isinstance(found[1][1], ValueError)
    energies = [found[item][1] for item in (0, 2, 3)]
    assert energies == pytest.approx([energies[0]] * 3)
    assert threads == {threading.current_thread()}


def test_a_width_below_one_is_refused_at_once() -> None:
    for calculator in (Springs(), EMT()):
        with pytest.raises(ConfigError, match="width is 0"):
            run_together(ask_item, [], calculator, width=0)
    assert list(run_together(ask_item, [], Springs())) == []


def test_no_pytorch_is_loaded() -> None:
    code = "import sys; from crack_md.calculators import run_together; " + (
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
