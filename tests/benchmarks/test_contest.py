"""Workers answer, take turns, and fail without taking others with them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms

from benchmarks.contest import run_contest
from benchmarks.contestant import Settings
from benchmarks.engines import OURS, Engine
from benchmarks.peers.process import PeerError, WorkerProcess
from benchmarks.work import Case

ADAPTER = str(Path(__file__).with_name("fake_adapter.py"))


def engine(name: str, diary: Path, **options: Any) -> Engine:
    options = {"name": name, "diary": str(diary), **options}
    return Engine(name, name.upper(), OURS, ADAPTER, options, function="f")


def case(n_atoms: int, work: str = "single") -> Case:
    return Case("H", work, (Atoms(f"H{n_atoms}", [[i, 0, 0] for i in range(n_atoms)]),))


def settings(folder: Path, **changes: Any) -> Settings:
    options = {"rounds": 3, "round_s": 0.0, "limit_s": 20.0, "logs": folder / "logs"}
    return Settings(**(options | changes))


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    made = engine("a", tmp_path / "diary").start(
        device="cpu", threads=1, logs=tmp_path / "logs"
    )
    yield made
    made.stop()


def test_a_worker_answers_though_libraries_print(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    options = {"name": "a", "diary": str(tmp_path / "diary")}
    loaded = worker.ask(
        "load", timeout_s=20, options=options, threads=1, memory_limit=None
    )
    assert loaded["about"]["weights"] == 3
    assert loaded["import_s"] >= 0
    given = case(4).as_lists() * 2
    prepared = worker.ask("prepare", timeout_s=20, work="batch", structures=given)
    assert prepared == {"n_atoms": 8}
    answer = worker.ask("call", timeout_s=20, n=5)
    assert len(answer["seconds"]) == 5
    assert answer["peak_bytes"] == 1234
    with pytest.raises(PeerError, match=r"^the graph is made inside the model$"):
        worker.ask("prepare", timeout_s=20, work="network", structures=given)
    assert worker.runs
    printed = (tmp_path / "logs" / "a.log").read_text()
    assert "hello" in printed
    assert "C code" in printed


def test_memory_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import worker\n"
        "worker.limit_memory(200 << 20)\n"
        "try: bytearray(400 << 20)\n"
        "except MemoryError as error: print(worker.is_memory(error))\n"
    )
    folder = Path(__file__).parents[2] / "benchmarks" / "peers"
    if not sys.platform.startswith("linux"):
        pytest.skip("there is no such limit on this system")
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"


def test_engines_are_called_in_alternation(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    contest = run_contest(
        [engine("a", diary), engine("b", diary)], [case(2)], settings(tmp_path)
    )
    # cold starts, then to warm up one after the other, then the rounds
    starts, warm_up, rounds = ["a", "b"], ["a"] * 4 + ["b"] * 4, ["a", "b"] * 3
    assert diary.read_text().split() == starts + warm_up + rounds
    for row in contest.rows:
        assert [len(one) for one in row.rounds] == [1, 1, 1]
        assert row.peak_bytes == 1234
    for one in contest.contestants:
        assert set(one.cold_start) == {"import_s", "load_s", "first_s"}


def test_steps_of_dynamics_are_shared_among_rounds(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    options = {"rounds": 2, "md_steps": 10, "md_warm_up": 3}
    (row,) = run_contest(
        [engine("a", diary)], [case(2, "md")], settings(tmp_path, **options)
    ).rows
    assert [len(one) for one in row.rounds] == [5, 5]
    assert len(diary.read_text().split()) == 1 + 2 + 3 + 10
    options = {"md_steps": 10**12}
    (row,) = run_contest(
        [engine("a", diary)], [case(2, "md")], settings(tmp_path, **options)
    ).rows
    assert row.reason.startswith("1,000,000,000,000 steps would take")


@pytest.mark.parametrize(
    ("failure", "reason", "later"),
    [
        ("dies", "the process ended with code 3: last words", None),
        ("hangs", "no answer within 5 s", "no answer within 5 s at 5 atoms"),
        ("memory", "out of memory", "out of memory at 5 atoms"),
    ],
)
def test_a_failure_is_a_row_with_a_reason(
    failure: str, reason: str, later: str | None, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    bad = engine("bad", diary, failure=failure, fails_from=5)
    cases = [case(2), case(5), case(6), case(2, "batch")]
    limits = {"limit_s": 5.0, "start_limit_s": 5.0} if failure == "hangs" else {}
    contest = run_contest(
        [bad, engine("good", diary)], cases, settings(tmp_path, **limits)
    )
    reasons = {(r.engine, r.case.name): r.reason for r in contest.rows}
    assert len(reasons) == 8
    found = [reasons["bad", one.name] for one in cases]
    assert found == ["", reason, later or reason, ""]
    for one in cases:
        assert reasons["good", one.name] == ""


def test_what_is_not_installed_is_a_row_too(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    absent = Engine("x", "X", "nowhere", "none.py", missing="no environment nowhere")
    contest = run_contest([absent, engine("a", diary)], [case(2)], settings(tmp_path))
    assert [row.reason for row in contest.rows] == ["no environment nowhere", ""]


def test_large_cases_do_not_share_a_gpu(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    contest = run_contest(
        [engine("a", diary), engine("b", diary)],
        [case(2)],
        settings(tmp_path, device="cuda", alone_from=2),
    )
    starts, each = ["a", "b"], 4 + 3
    assert diary.read_text().split() == starts + ["a"] * each + ["b"] * each
    assert [row.reason for row in contest.rows] == ["", ""]
    assert [one.worker for one in contest.contestants] == [None, None]


def test_what_would_take_too_long_is_not_tried(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    slow = engine("slow", diary, seconds_per_atom=0.02)
    limits = settings(tmp_path, limit_s=15.0, rounds=1)
    contest = run_contest([slow], [case(2), case(1000)], limits)
    first, second = (row.reason for row in contest.rows)
    assert first == ""
    expected = re.fullmatch(r"a call would take about (\d+) s, limit 15 s", second)
    assert expected
    assert int(expected[1]) >= 20  # 1000 atoms at 0.02 s
    assert len(diary.read_text().split()) == 1 + 4 + 1  # of the first case alone
