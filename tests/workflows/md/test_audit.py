import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential

from crack_md.errors import ConfigError, StructureError
from crack_md.workflows.md.audit import AuditSettings, force_asymmetry, run_audit
from tests.workflows.harmonic import LinearForces, Scripted


def matrices(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a negative definite symmetric and an antisymmetric matrix."""
    rng = np.random.default_rng(seed)
    square = rng.standard_normal((2, size, size))
    return -square[0] @ square[0].T / size - np.eye(size), square[1] - square[1].T


def atoms(count: int) -> Atoms:
    return Atoms(f"Cu{count}", 4.0 * np.arange(count)[:, None] * np.ones(3))


def test_asymmetry_of_linear_forces_is_that_of_their_matrix():
    symmetric, antisymmetric = matrices(12)
    jacobian = symmetric + 0.01 * antisymmetric
    start = atoms(4)
    calculator = LinearForces(start.positions, jacobian)
    found = force_asymmetry(
        start, calculator, directions=99, rng=np.random.default_rng(0)
    )
    exact = np.linalg.norm(jacobian - jacobian.T) / np.linalg.norm(jacobian)
    assert found.value == pytest.approx(exact, rel=1e-9)
    assert (found.n_directions, found.n_coordinates) == (12, 12)


def test_asymmetry_in_a_subspace_is_of_the_same_size():
    symmetric, antisymmetric = matrices(90)
    start = atoms(30)
    calculator = LinearForces(start.positions, symmetric + 0.01 * antisymmetric)
    found = [
        force_asymmetry(start, calculator, directions=n, rng=np.random.default_rng(1))
        for n in (30, 90)
    ]
    assert found[0].n_directions == 30
    assert 0.3 < found[0].value / found[1].value < 3.0


def test_curved_gradient_forces_are_symmetric_to_round_off():
    """An anharmonic potential: a second-order stencil would leave 1e-4 here."""
    start = Atoms("Cu4", 1.1 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]))
    found = force_asymmetry(
        start, MorsePotential(), directions=12, rng=np.random.default_rng(0)
    )
    assert found.value < 1e-6


def audit(calculator: Any, start: Atoms, folder: Path, **changes: Any) -> Any:
    settings = AuditSettings(
        **{
            "timestep_fs": 4.0,
            "steps": 600,
            "equilibration_steps": 100,
            "directions": 12,
            "log_every": 2,
            **changes,
        }
    )
    return run_audit(start, calculator, settings=settings, folder=folder)


def test_copper_conserves_energy(tmp_path: Path):
    start = bulk("Cu", cubic=True)
    found = audit(EMT(), start, tmp_path)
    assert found["passes"], found["verdict"]
    drift = found["nve"]["drift_meV_per_atom_ps"]
    assert abs(drift) < 0.05
    assert abs(drift) < 4 * found["nve"]["drift_error_meV_per_atom_ps"] + 0.01
    assert found["nve"]["duration_ps"] == pytest.approx(2.4)
    assert found["nve_half_step"]["duration_ps"] == pytest.approx(1.2)
    assert found["fluctuation_ratio"] == pytest.approx(4.0, abs=0.4)
    assert found["asymmetry"]["value"] < 1e-6
    assert json.loads((tmp_path / "audit.json").read_text())["passes"]
    page = (tmp_path / "audit.txt").read_text()
    assert "Drift within 0.05 meV/atom/ps: yes" in page
    assert "This model conserves energy here." in page
    again = audit(EMT(), start, tmp_path)
    assert again["nve"] == found["nve"]


def test_forces_that_are_no_gradient_are_found_out(tmp_path: Path):
    symmetric, antisymmetric = matrices(12, seed=2)
    start = atoms(4)
    start.rattle(0.1, seed=1)
    calculator = LinearForces(atoms(4).positions, symmetric + 0.02 * antisymmetric)
    found = audit(calculator, start, tmp_path, timestep_fs=1.0, steps=2000)
    assert not found["passes"]
    assert not found["verdict"]["drift"]
    assert not found["verdict"]["asymmetry"]
    page = (tmp_path / "audit.txt").read_text()
    assert "Drift within 0.05 meV/atom/ps: NO" in page
    assert "Not passed." in page


def test_a_run_that_explodes_is_no_number_and_no_pass(tmp_path: Path):
    start = atoms(4)
    stiffness = -np.eye(12)
    stiffness[0, 1], stiffness[1, 0] = 60.0, -60.0
    found = audit(
        LinearForces(start.positions, stiffness),
        start,
        tmp_path,
        timestep_fs=1.0,
        log_every=30,
        equilibration_friction_per_ps=1000.0,
    )
    assert not found["passes"]
    assert "too_hot" in found["stopped"]["nve"]
    assert found["fluctuation_ratio"] is None
    assert "nve ended early, step" in (tmp_path / "audit.txt").read_text()
    broken = Scripted(after=50, forces=float("nan"))
    with pytest.raises(StructureError, match="equilibration ended early, at step"):
        audit(broken, start, tmp_path / "broken")


def test_too_short_an_audit_is_refused():
    with pytest.raises(ConfigError, match="200 or more"):
        AuditSettings(steps=199)
