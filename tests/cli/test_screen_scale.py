"""``crack-md screen`` by several processes, stopped and killed at any moment."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.commands import command, crack_md, one_thread
from tests.workflows.screening.workers.driver import killed_after, rows_of, write_slabs

GASES = "H2O=2.2,H2=2.5"
BASE = ["--model", "emt", "--fmax", "0.1", "--gas-reference", GASES]
FEW = ["--max-sites", "2"]
"""With these, 12 slabs are 12 + 24 relaxations."""


@pytest.fixture(scope="module")
def slabs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slabs(tmp_path_factory.mktemp("input") / "slabs.extxyz", 12)


@pytest.fixture(scope="module")
def serial(slabs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("serial") / "out"
    done = crack_md("screen", slabs, *BASE, *FEW, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def assert_same_tables(out: Path, serial: Path) -> None:
    for name in ("results.csv", "sites.csv"):
        assert (out / name).read_bytes() == (serial / name).read_bytes()


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(word) for word in found.stdout.split()]


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


def test_three_kills_change_nothing(slabs: Path, serial: Path, tmp_path: Path) -> None:
    """benchmarks/screen_kills.py does it with 200 slabs, at random moments."""
    out = tmp_path / "out"
    arguments = ["screen", slabs, *BASE, *FEW, "--out", out, "--workers", "2"]
    for n_rows in (1, 8, 20):
        killed_after(arguments, out / "results.db", n_rows)
        assert not (out / "results.csv").exists()
    before = rows_of(out / "results.db")
    done = crack_md(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["processors"] == {"workers": 2, "batch": 1, "ray": None}
    assert summary["counts"]["relaxations_done"] == rows_of(out / "results.db") - before
    assert_same_tables(out, serial)


@pytest.mark.parametrize("moment_s", [0.9, 1.6, 2.2])
def test_ctrl_c_at_any_moment(slabs: Path, tmp_path: Path, moment_s: float) -> None:
    """It goes to all processes of the terminal; one of them has something to say."""
    out = tmp_path / "out"
    arguments = ["screen", slabs, *BASE, "--out", out, "--workers", "2"]
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=one_thread(),
        start_new_session=True,
    )
    _wait_for_work(process.pid, moment_s)
    workers = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    if "Traceback" in errors and "crack_md/cli" not in errors.split("KeyboardInt")[0]:
        pytest.skip("Ctrl-C came before the command was there")
    assert process.returncode == 130, errors
    assert errors.strip() == "interrupted" or errors.strip().endswith(
        "run the same command again to go on"
    )
    assert errors.count("\n") == 1
    assert output == ""
    deadline = time.monotonic() + 10
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _wait_for_work(pid: int, seconds: float) -> None:
    """Wait until a process has had so much of a core: machines may be busy."""
    deadline = time.monotonic() + 120
    ticks = os.sysconf("SC_CLK_TCK")
    while time.monotonic() < deadline:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if (int(fields[11]) + int(fields[12])) / ticks >= seconds:
            return
        time.sleep(0.005)


def test_killed_driver_leaves_no_process(slabs: Path, tmp_path: Path) -> None:
    arguments = ["screen", slabs, *BASE, "--out", tmp_path / "out", "--workers", "2"]
    process = subprocess.Popen(
        command(*arguments), stderr=subprocess.DEVNULL, env=one_thread()
    )
    deadline = time.monotonic() + 120
    while rows_of(tmp_path / "out" / "results.db") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus-per-worker", "0.5"], "--gpus-per-worker needs --ray"),
        (["--db", "results.db"], "--db is 'results.db'; expected postgresql://"),
        (["--db", "postgresql://me:pw@127.0.0.1:1/a"], "cannot use the database"),
    ],
)
def test_bad_options_are_one_line(
    slabs: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    done = crack_md("screen", slabs, *BASE, "--out", tmp_path / "out", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert ":pw" not in done.stderr


def test_batches_and_workers_of_the_student_change_no_digit(tmp_path: Path) -> None:
    """In float64, where sums in another order differ by 1e-15."""
    slabs = write_slabs(tmp_path / "slabs.extxyz", 2)
    arguments = ["screen", slabs, "--dtype", "float64", "--device", "cpu"]
    arguments += ["--model", "accurate"]  # it takes 1x1 cells too
    arguments += ["--max-sites", "2", "--fmax", "0.1", "--json"]
    for name, options in {
        "serial": [],
        "batch": ["--batch", "3"],
        "workers": ["--workers", "2", "--batch", "2"],
    }.items():
        done = crack_md(*arguments, "--out", tmp_path / name, *options)
        assert done.returncode == 0, done.stderr
        assert_same_tables(tmp_path / name, tmp_path / "serial")
        assert json.loads(done.stdout)["model"]["dtype"] == "float64"
    other = crack_md(*arguments, "--dtype", "float32", "--out", tmp_path / "batch")
    assert other.returncode == 2
    assert "dtype 'float64' (now None)" in other.stderr
