import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.db import connect
from ase.io.trajectory import Trajectory

from tests.cli.commands import command, crack_md, one_thread


@pytest.fixture(scope="module")
def structures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("input") / "structures.db"
    database = connect(path)
    for name, metal, a in (("copper", "Cu", 3.7), ("gold / hot", "Au", 4.2)):
        database.write(bulk(metal, cubic=True, a=a), name=name)
    broken = bulk("Cu", cubic=True)
    broken.positions[0] = np.nan
    database.write(broken, name="broken")
    database.write(bulk("Fe"), name="iron")
    database.write(fcc111("Cu", (1, 1, 3), vacuum=6.0), name="flat")
    return path


OPTIONS = ["--model", "emt", "--cell", "full", "--fmax", "0.001"]


def test_one_row_a_structure_and_failures_apart(structures: Path, tmp_path: Path):
    out = tmp_path / "out"
    done = crack_md("relax", structures, *OPTIONS, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["counts"] == {
        "converged": 2,
        "bad_structure": 1,
        "unknown_element": 1,
        "failed": 1,
    }
    with (out / "results.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["copper", "gold / hot", "broken", "iron", "flat"]
    assert float(rows["copper"]["volume_A3"]) == pytest.approx(3.59**3, rel=2e-3)
    assert float(rows["copper"]["max_stress_GPa"]) < 0.1
    assert "needs a structure that is periodic" in rows["flat"]["error"]
    frames = ase.io.read(out / "relaxed.extxyz", ":")
    assert [frame.info["name"] for frame in frames] == ["copper", "gold / hot"]
    energies = [frame.get_potential_energy() for frame in frames]
    assert energies[0] == pytest.approx(float(rows["copper"]["energy_eV"]), abs=1e-7)
    names = sorted(path.name for path in (out / "trajectories").iterdir())
    assert names[:2] == ["0001-copper.traj", "0002-gold_hot.traj"]
    with Trajectory(out / "trajectories" / names[0]) as trajectory:
        assert len(trajectory) == int(rows["copper"]["steps"]) + 1

    again = crack_md("relax", structures, *OPTIONS, "--out", out)
    assert again.returncode == 0
    assert "iron: unknown_element" in again.stdout
    other = crack_md("relax", structures, *OPTIONS, "--steps", 3, "--out", out)
    assert other.returncode == 2
    assert "steps 300 (now 3)" in other.stderr


def test_nothing_relaxed_is_exit_code_one(tmp_path: Path):
    ase.io.write(tmp_path / "iron.cif", bulk("Fe"))
    done = crack_md(
        "relax", tmp_path / "iron.cif", "--model", "emt", "--out", tmp_path / "out"
    )
    assert done.returncode == 1
    assert "unknown_element" in done.stdout


def test_killed_run_repeats_nothing_that_is_finished(tmp_path: Path):
    rng = np.random.default_rng(0)
    many = []
    for _ in range(12):
        atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0, periodic=True)
        atoms.info.clear()
        atoms.positions += 0.1 * rng.standard_normal(atoms.positions.shape)
        many.append(atoms)
    ase.io.write(tmp_path / "many.extxyz", many)
    options = ["--model", "emt", "--fmax", "0.001", "--out", tmp_path / "out"]
    line = command("relax", tmp_path / "many.extxyz", *options)
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL, env=one_thread())
    deadline = time.monotonic() + 60
    second = tmp_path / "out" / "trajectories" / "0004-many-4.traj"
    while time.monotonic() < deadline and not second.exists():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = tmp_path / "out" / "trajectories" / "0001-many-1.traj"
    written = first.stat().st_mtime_ns
    assert not (tmp_path / "out" / "results.csv").exists()
    assert crack_md(*line[3:]).returncode == 0
    assert first.stat().st_mtime_ns == written
    rows = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert len(rows) == 13


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.cif"], "no such file"),
        (["cu.cif", "--optimizer", "SGD"], "unknown optimizer 'SGD'"),
        (["cu.cif", "--out", "cu.cif"], "cannot write to 'cu.cif'"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    ase.io.write("cu.cif", Atoms("Cu", cell=[3, 3, 3], pbc=True))
    done = crack_md("relax", *arguments, "--model", "emt")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
