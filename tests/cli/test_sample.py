"""`crack-md sample` as a user meets it."""

import json
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from crack_md import cli
from crack_md.workflows.sampling.chains import ChainReplicas, LangevinSettings


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs a command line: exit code, stdout, stderr."""

    def execute(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["crack-md", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return execute


def trimer(count: int, *, temperature_K: float = 300.0, seed: int = 7) -> list[Atoms]:
    """Return frames of Cu3 under EMT, from independent chains."""
    numbers = np.array([29, 29, 29])
    start = np.array([[0.0, 0, 0], [2.3, 0, 0], [1.15, 2.0, 0]])
    starts = np.repeat(start[None], 20, axis=0)
    settings = LangevinSettings(temperature_K, 4.0, 20.0, seed)
    dynamics = ChainReplicas(numbers, starts, EMT(), settings, starts)
    dynamics.advance(80)
    frames = []
    for _ in range(count // 20):
        dynamics.advance(15)
        for position in dynamics.positions:
            atoms = Atoms(numbers, position, calculator=EMT())
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
            atoms.info["temperature_K"] = temperature_K
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
            frames.append(atoms)
    return [frames[i::20][j] for i in range(20) for j in range(count // 20)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "cu3.extxyz"
    ase.io.write(path, trimer(1200))
    return path


OPTIONS = ("--timestep", 4, "--friction", 20, "--record-every", 10, "--chains", 8)


def test_a_model_that_samples_right(run, reference: Path, tmp_path: Path):
    out = tmp_path / "deep" / "out"
    code, told, errors = run(
        *("sample", "emt", reference, "--out", out, "--steps", 2500, *OPTIONS),
        *("--seed", 5),
    )
    record = json.loads((out / "sampling.json").read_text(encoding="utf-8"))
    assert (code, record["verdict"]) == (0, "PASS"), (
        record["failures"] + record["doubts"]
    )
    assert errors == ""
    for part in ("PASS", "all pairs", "survival 1.00", "virial", "model on its chains"):
        assert part in told
    made = {path.name for path in out.iterdir()}
    wanted = {
        "sampling.json",
        "report.html",
        "chains.npz",
        "ratios.png",
        "energies.png",
    }
    assert wanted <= made
    assert record["reference"]["temperature_K"] == 300.0
    assert record["chains"]["timestep_fs"] == 4.0
    assert record["command"].startswith("crack-md sample emt")


def test_json_alone_and_too_few_steps(run, reference: Path, tmp_path: Path):
    code, told, _ = run(
        *("sample", "emt", reference, "--out", tmp_path, "--json"),
        *("--steps", 200, "--discard", 20, *OPTIONS),
    )
    record = json.loads(told)
    assert code == 2
    assert record["verdict"] == "INCONCLUSIVE"
    # going on with a longer run
    code, told, _ = run(
        *("sample", "emt", reference, "--out", tmp_path, "--json"),
        *("--steps", 240, "--discard", 20, *OPTIONS),
    )
    assert json.loads(told)["chains"]["steps"] == 240
    code, _, errors = run(
        *("sample", "emt", reference, "--out", tmp_path, "--json"),
        *("--steps", 240, "--discard", 20, *OPTIONS, "--seed", 1),
    )
    assert code == 2
    assert errors.startswith("error: ")
    assert "seed 0 (now 1)" in errors


def test_a_reference_beside_itself(run, reference: Path, tmp_path: Path):
    code, told, _ = run("sample", "--self", reference, "--out", tmp_path)
    assert code == 0, told
    assert "its second half beside them" in told
    assert not (tmp_path / "chains.npz").exists()


def test_a_wrong_temperature_fails_or_is_doubted(run, tmp_path: Path):
    path = tmp_path / "hot.extxyz"
    ase.io.write(path, trimer(800, temperature_K=600.0))
    code, told, _ = run(
        *("sample", "--self", path, "--temperature", 300, "--out", tmp_path / "out")
    )
    assert code == 2
    assert "give its --temperature" in " ".join(told.split())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["emt"], "expected: crack-md sample MODEL REFERENCE"),
        (["--self", "a", "b"], "expected: crack-md sample --self REFERENCE"),
        (["emt", "absent.npz"], "no such file: 'absent.npz'"),
        (["absent.pt", "REFERENCE"], "absent.pt"),
        (["emt", "REFERENCE", "--chains", "2"], "expected 4 or more"),
        (["emt", "REFERENCE", "--temperature", "-1"], "give --temperature, in K"),
    ],
)
def test_bad_input_is_one_line(
    run, reference: Path, tmp_path: Path, arguments: list[str], line: str
):
    named = [str(reference) if a == "REFERENCE" else a for a in arguments]
    code, _, errors = run("sample", *named, "--out", tmp_path / "out")
    assert code == 2
    assert line in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out" / "sampling.json").exists()


def test_an_interrupted_run_says_how_to_go_on(
    run, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = ChainReplicas.advance

    def interrupted(self: ChainReplicas, n_steps: int) -> None:
        if self.step_count >= 100:
            raise KeyboardInterrupt
        real(self, n_steps)

    options = ("--out", tmp_path, "--steps", 150, "--discard", 20, *OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(ChainReplicas, "advance", interrupted)
        code, _, errors = run("sample", "emt", reference, *options)
    assert code == 130
    assert errors.strip().endswith("run the same command again to go on")
    assert (tmp_path / "chains.npz").exists()
    code, _, _ = run("sample", "emt", reference, *options)
    assert code in (0, 1, 2)
    assert (tmp_path / "report.html").exists()
