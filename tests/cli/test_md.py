import json
import os
import signal
import subprocess
import time
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk, fcc111

from crack_md.models.checkpoint import save_model
from tests.cli.commands import command, crack_md, one_thread
from tests.factories import oxygen_slab, tiny_model

FILES = ("thermo.csv", "trajectory.extxyz", "restart.npz", "final.extxyz")
BASE = ["--model", "emt", "--timestep", "4", "--temperature", "800"]


@pytest.fixture
def slab(tmp_path: Path) -> Path:
    atoms = fcc111("Cu", (1, 2, 3), vacuum=6.0, periodic=True)
    ase.io.write(tmp_path / "slab.traj", atoms)
    return tmp_path / "slab.traj"


def test_json_on_stdout_and_files_beside_it(slab: Path, tmp_path: Path):
    out = tmp_path / "deep" / "out"
    done = crack_md("md", slab, *BASE, "--steps", 100, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["settings"]["model"] == "emt"
    assert {path.name for path in out.iterdir()} == {
        *FILES,
        ".lock",
        "settings.json",
        "summary.json",
    }
    more = crack_md("md", slab, *BASE, "--steps", 200, "--out", out)
    assert more.returncode == 0
    assert "0.8 ps, 200 steps of 4 fs, langevin" in more.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_killed_run_goes_on_to_the_same_bits(
    slab: Path, tmp_path: Path, how: signal.Signals
):
    # long enough that a busy machine kills it before its end
    options = [*BASE, "--steps", 4000, "--frames-every", 20, "--seed", 7]
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command("md", slab, *options, "--out", out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=one_thread(),
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _rows(out / "thermo.csv") < 15:
        time.sleep(0.005)
    os.kill(process.pid, how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGKILL), errors
    if how is signal.SIGINT:
        assert errors.strip().endswith("run the same command again to go on")
    assert not (out / "summary.json").exists()
    assert crack_md("md", slab, *options, "--out", out).returncode == 0
    whole = tmp_path / "whole"
    assert crack_md("md", slab, *options, "--out", whole).returncode == 0
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def _rows(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_run_that_leaves_physics_is_exit_code_one(slab: Path, tmp_path: Path):
    out = tmp_path / "out"
    done = crack_md("md", slab, *BASE[:2], "--timestep", 150, "--out", out)
    assert done.returncode == 1
    assert "too_hot at step" in done.stderr
    assert "final.extxyz" in done.stderr
    assert done.stderr.count("\n") == 1
    assert json.loads((out / "summary.json").read_text())["status"] == "too_hot"


def test_audit_prints_its_page(tmp_path: Path):
    ase.io.write(tmp_path / "cu.cif", bulk("Cu", cubic=True))
    options = ["--model", "emt", "--audit", "--steps", 400, "--timestep", 4]
    done = crack_md("md", tmp_path / "cu.cif", *options, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "out" / "audit.txt").read_text()
    assert done.stdout.startswith(page)
    assert "Energy conservation of emt on Cu4 (4 atoms)" in page
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["jacobian_precision"] == "float64"


def test_direct_forces_are_said_to_be_direct_once(tmp_path: Path):
    save_model(tiny_model(forces="direct"), tmp_path / "direct.pt")
    ase.io.write(tmp_path / "slab.traj", oxygen_slab())
    options = ["--model", tmp_path / "direct.pt", "--steps", 3]
    slab, out = tmp_path / "slab.traj", tmp_path / "out"
    done = crack_md("md", slab, *options, "--out", out)
    assert done.stderr.count("do not conserve energy") == 1
    refused = crack_md("md", slab, *options, "--ensemble", "npt", "--out", out)
    assert refused.returncode == 2
    assert "npt needs stress, and this model has none" in refused.stderr


def test_model_of_ours_resumes_to_the_same_bits(tmp_path: Path):
    """Neighbors kept from step to step may not show in a restarted run."""
    save_model(tiny_model(), tmp_path / "tiny.pt")
    ase.io.write(tmp_path / "slab.traj", oxygen_slab())
    slab = tmp_path / "slab.traj"
    options = ["--model", tmp_path / "tiny.pt", "--restart-every", 10, "--device"]
    options += ["cpu", "--let-bonds-break", "--temperature", 2000]
    for steps in (10, 20):
        crack_md("md", slab, *options, "--steps", steps, "--out", tmp_path / "parts")
    crack_md("md", slab, *options, "--steps", 20, "--out", tmp_path / "whole")
    for name in FILES:
        whole, parts = (tmp_path / part / name for part in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes(), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.traj"], "no such file: 'absent.traj'"),
        (["iron.traj"], "the model does not know Fe; it was trained on Ag, "),
        (["slab.traj", "--index", "3"], "--index is 3, and 'slab.traj' has 1"),
        (["slab.traj", "--temperature", "-3"], "temperature_K is -3.0"),
        (["slab.traj", "--ensemble", "npt"], "npt needs a bulk"),
        (["slab.traj", "--audit", "--steps", "10"], "steps is 10; an audit needs"),
        (["slab.traj", "--model", "absent.pt"], "absent.pt"),
        (["slab.traj", "--out", "slab.traj"], "cannot write to 'slab.traj'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    slab: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
):
    monkeypatch.chdir(slab.parent)
    ase.io.write("iron.traj", bulk("Fe"))
    before = sorted(path.name for path in slab.parent.iterdir())
    given = arguments if "--model" in arguments else [*arguments, "--model", "emt"]
    done = crack_md("md", *given)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in slab.parent.iterdir()) == before


def test_notes_come_as_lines(slab: Path, tmp_path: Path):
    """Of 0.04 ps in a bath of 1 ps, and a cell of one atom by two."""
    done = crack_md("md", slab, *BASE, "--steps", 10, "--out", tmp_path / "out")
    lines = done.stderr.splitlines()
    assert [line[:29] for line in lines] == [
        "note: the cell repeats after ",
        "note: not equilibrated: its 0",
    ]
    assert "; the target is 800 K" in done.stdout
