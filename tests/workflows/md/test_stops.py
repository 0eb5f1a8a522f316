from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from scipy.stats import chi2

from crack_md.workflows.md.run import MDResult, run_dynamics
from crack_md.workflows.md.settings import MDSettings
from crack_md.workflows.md.simulation import StopRules
from tests.workflows.harmonic import Scripted


def run(atoms: Atoms, forces: object, folder: Path, **changes: object) -> MDResult:
    settings = MDSettings(
        ensemble="nve",
        steps=100,
        initial_temperature_K=1e-6,
        log_every=5,
        frames_every=10,
        restart_every=10,
        **changes,  # type: ignore[arg-type]
    )
    calculator = Scripted(after=40, forces=forces)
    return run_dynamics(atoms, calculator, settings=settings, folder=folder)


def lattice() -> Atoms:
    return Atoms("Cu8", 2.5 * np.argwhere(np.ones((2, 2, 2))), cell=[5] * 3, pbc=True)


def water() -> Atoms:
    return Atoms("OH2", [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]])


@pytest.mark.parametrize(
    ("forces", "status", "reason"),
    [
        (float("nan"), "not_finite", "not finite"),
        (RuntimeError("no\nmemory"), "calculator_failed", "RuntimeError: no memory"),
    ],
)
def test_broken_forces_end_the_run_and_keep_its_files(
    forces: object, status: str, reason: str, tmp_path: Path
):
    result = run(lattice(), forces, tmp_path)
    assert (result.status, result.summary["status"]) == (status, status)
    assert reason in result.reason
    assert 30 <= result.step < 45
    frames = ase.io.read(tmp_path / "trajectory.extxyz", ":")
    assert frames[-1].info["step"] == result.summary["last_good_step"] == 30
    assert np.isfinite(frames[-1].positions).all()
    assert np.isfinite(result.atoms.positions).all()


def test_heating_ends_the_run(tmp_path: Path):
    forces = np.zeros((8, 3))
    forces[0], forces[1] = [3, 0, 0], [-3, 0, 0]
    result = run(lattice(), forces, tmp_path, stop_at_broken_bonds=False)
    assert result.status == "too_hot"
    assert result.step > 40


def test_few_atoms_may_be_hot_by_chance():
    """Three times the temperature for many atoms; for one, what comes once in 1e12."""
    limits = [
        StopRules.for_run(
            lattice(), temperature_K=100.0, dof=dof, watches_bonds=True
        ).max_temperature_K
        for dof in (3, 3000)
    ]
    assert limits[0] == pytest.approx(100.0 * chi2.isf(1e-12, 3) / 3)
    assert limits[1] == 300.0


def test_molecule_that_falls_apart_ends_the_run(tmp_path: Path):
    forces = np.array([[0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]])
    result = run(water(), forces, tmp_path, temperature_K=1e6)
    assert result.status == "broken_bonds"
    assert "O (atom 0) and H (atom 1)" in result.reason
    kept = run(
        water(),
        forces,
        tmp_path / "kept",
        temperature_K=1e6,
        stop_at_broken_bonds=False,
    )
    assert kept.status == "finished"


def test_oxygen_may_hop_but_not_leave():
    slab = fcc111("Pt", (2, 2, 3), vacuum=8.0, periodic=True)
    add_adsorbate(slab, "O", 1.2, "fcc")
    rules = StopRules.for_run(slab, temperature_K=300.0, dof=39, watches_bonds=True)
    hopped = slab.copy()
    hopped.positions[-1, :2] += hopped.cell.array[0, :2] / 2
    assert rules.check_bonds(hopped) is None
    hopped.positions[-1, 2] += 5.0
    stop = rules.check_bonds(hopped)
    assert stop is not None
    assert stop.reason == "O (atom 12) left all other atoms"
