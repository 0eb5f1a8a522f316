import json
import shutil
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from crack_md.errors import ConfigError, DataError
from crack_md.workflows.md.integrators import temperature
from crack_md.workflows.md.run import MDResult, run_dynamics
from crack_md.workflows.md.settings import ENSEMBLES, Ensemble, MDSettings
from crack_md.workflows.md.summary import read_thermo
from tests.workflows.harmonic import Harmonic

FILES = ("thermo.csv", "trajectory.extxyz", "restart.npz", "final.extxyz")


def slab() -> Atoms:
    """Return hot copper with a fixed layer, which soon leaves its neighbor list."""
    atoms = fcc111("Cu", (1, 2, 3), vacuum=6.0, periodic=True)
    atoms.set_constraint(FixAtoms(atoms.get_tags() == 3))
    return atoms


def structure(ensemble: Ensemble) -> Atoms:
    return bulk("Cu", cubic=True) if ensemble == "npt" else slab()


def settings(ensemble: Ensemble = "langevin", **changes: object) -> MDSettings:
    plain = MDSettings(
        ensemble=ensemble,
        temperature_K=900.0,
        timestep_fs=5.0,
        friction_per_ps=5.0,
        log_every=5,
        frames_every=20,
        restart_every=50,
        pressure_time_fs=200.0,
        seed=3,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def run(folder: Path, chosen: MDSettings, atoms: Atoms | None = None) -> MDResult:
    start = structure(chosen.ensemble) if atoms is None else atoms
    return run_dynamics(start, EMT(), settings=chosen, folder=folder)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_two_halves_are_the_whole_to_the_last_bit(ensemble: Ensemble, tmp_path: Path):
    half = 500 if ensemble == "langevin" else 100
    whole = run(tmp_path / "whole", settings(ensemble, steps=2 * half))
    run(tmp_path / "parts", settings(ensemble, steps=half))
    parts = run(tmp_path / "parts", settings(ensemble, steps=2 * half))
    assert whole.status == parts.status == "finished"
    assert whole.step == parts.step == 2 * half
    assert np.array_equal(whole.atoms.positions, parts.atoms.positions)
    assert np.array_equal(whole.atoms.get_momenta(), parts.atoms.get_momenta())
    for name in FILES:
        assert (tmp_path / "whole" / name).read_bytes() == (
            tmp_path / "parts" / name
        ).read_bytes(), name
    assert parts.summary["cost"]["steps_done_now"] == half
    moved = np.abs(whole.atoms.positions - structure(ensemble).positions).max()
    assert moved > 0.05


def test_a_run_that_was_cut_anywhere_goes_on(tmp_path: Path):
    """Files longer than the restart file says are cut; the rest is repeated."""
    whole = run(tmp_path / "whole", settings(steps=200))
    run(tmp_path / "parts", settings(steps=133))
    with (tmp_path / "parts" / "thermo.csv").open("a") as file:
        file.write("135,half a ro")
    parts = run(tmp_path / "parts", settings(steps=200))
    assert parts.summary["cost"]["steps_done_now"] == 100
    assert np.array_equal(whole.atoms.positions, parts.atoms.positions)
    for name in FILES:
        assert (tmp_path / "whole" / name).read_bytes() == (
            tmp_path / "parts" / name
        ).read_bytes(), name


def test_binary_trajectory_resumes_too(tmp_path: Path):
    whole = run(tmp_path / "whole", settings(steps=100, format="traj"))
    run(tmp_path / "parts", settings(steps=70, format="traj"))
    run(tmp_path / "parts", settings(steps=100, format="traj"))
    frames = [
        ase.io.read(tmp_path / part / "trajectory.traj", ":")
        for part in ("whole", "parts")
    ]
    assert len(frames[0]) == len(frames[1]) == 6
    for one, other in zip(*frames, strict=True):
        assert np.array_equal(one.positions, other.positions)
        assert np.array_equal(one.get_velocities(), other.get_velocities())
        assert one.get_potential_energy() == other.get_potential_energy()
    assert np.array_equal(frames[0][-1].positions, whole.atoms.positions)


def test_same_seed_same_run_other_seed_other_run(tmp_path: Path):
    first, same, other = (
        run(tmp_path / name, settings(steps=20, seed=seed)).atoms.positions
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert np.array_equal(first, same)
    assert not np.allclose(first, other)


def test_table_and_trajectory_tell_the_same(tmp_path: Path):
    result = run(tmp_path, settings("nve", steps=40, timestep_fs=1.0))
    thermo = read_thermo(tmp_path / "thermo.csv")
    assert thermo["step"].tolist() == list(range(0, 41, 5))
    assert thermo["time_fs"].tolist() == list(range(0, 41, 5))
    frames = ase.io.read(tmp_path / "trajectory.extxyz", ":")
    assert [frame.info["step"] for frame in frames] == [0, 20, 40]
    last = frames[-1]
    assert last.get_potential_energy() == pytest.approx(
        thermo["potential_energy_eV"][-1], abs=1e-7
    )
    kinetic = float(result.atoms.get_kinetic_energy())
    assert thermo["kinetic_energy_eV"][-1] == kinetic
    assert thermo["temperature_K"][-1] == temperature(kinetic, 12)
    assert thermo["temperature_K"][0] == pytest.approx(900.0)
    total = thermo["total_energy_eV"]
    assert np.array_equal(total, thermo["conserved_energy_eV"])
    assert np.ptp(total) < 0.01 * np.ptp(thermo["kinetic_energy_eV"])
    assert last.get_forces(apply_constraint=False)[:2].any()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["settings"]["timestep_fs"] == 1.0
    assert summary["last_good_step"] == 40


def test_heat_bath_brings_the_temperature(tmp_path: Path):
    sites = 8.0 * np.arange(30)[:, None] * np.ones(3)
    stiffness = np.linspace(1.0, 4.0, 30)[:, None]  # equal ones would swing as one
    for ensemble in ("langevin", "bussi"):
        atoms = Atoms("Cu30", sites)
        chosen = settings(
            ensemble,
            steps=3000,
            friction_per_ps=20.0,
            initial_temperature_K=100.0,
            stop_at_broken_bonds=False,
        )
        result = run_dynamics(
            atoms,
            Harmonic(sites, stiffness),
            settings=chosen,
            folder=tmp_path / ensemble,
        )
        mean = result.summary["second_half"]["temperature_K"]
        assert mean == pytest.approx(900.0, rel=0.06), ensemble


def test_npt_finds_the_pressure(tmp_path: Path):
    squeezed = bulk("Cu", cubic=True, a=3.5)
    chosen = settings("npt", steps=1500, temperature_K=300.0, timestep_fs=4.0)
    result = run(tmp_path, chosen, squeezed)
    means = result.summary["second_half"]
    assert abs(means["pressure_GPa"]) < 1.5  # it starts near 20
    assert result.atoms.get_volume() > squeezed.get_volume() * 1.05
    thermo = read_thermo(tmp_path / "thermo.csv")
    assert thermo["pressure_GPa"][0] > 10
    assert np.isnan(thermo["conserved_energy_eV"]).all()


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (slab(), "has constraints"),
        (fcc111("Cu", (1, 1, 3), vacuum=6.0, periodic=True), "vacuum"),
        (fcc111("Cu", (1, 1, 3), vacuum=6.0), "not periodic"),
    ],
)
def test_npt_of_what_has_no_pressure_is_refused(
    atoms: Atoms, message: str, tmp_path: Path
):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "out", settings("npt", steps=10), atoms)
    assert not (tmp_path / "out").exists()


def test_npt_without_stress_is_refused(tmp_path: Path):
    calculator = Harmonic(np.zeros((4, 3)), 1.0)
    with pytest.raises(ConfigError, match="forces are direct"):
        run_dynamics(
            bulk("Cu", cubic=True),
            calculator,
            settings=settings("npt"),
            folder=tmp_path,
        )


def test_velocities_of_the_structure_are_kept(tmp_path: Path):
    first = run(tmp_path / "first", settings("nve", steps=20, frames_every=10))
    second = run(tmp_path / "second", settings("nve", steps=10), first.atoms)
    thermo = [
        read_thermo(tmp_path / part / "thermo.csv") for part in ("first", "second")
    ]
    before, after = (table["total_energy_eV"] for table in thermo)
    assert after[0] == pytest.approx(before[-1], abs=1e-12)
    assert second.step == 10


def test_other_settings_do_not_mix(tmp_path: Path):
    run(tmp_path, settings(steps=10))
    with pytest.raises(DataError, match=r"temperature_K 900\.0 \(now 300\.0\)"):
        run(tmp_path, settings(steps=20, temperature_K=300.0))
    moved = slab()
    moved.positions[-1, 2] += 0.1
    with pytest.raises(DataError, match="structure_sha256"):
        run(tmp_path, settings(steps=20), moved)
    with pytest.raises(DataError, match="has 10 steps already"):
        run(tmp_path, settings(steps=5))
    again = run(tmp_path, settings(steps=10))
    assert again.status == "finished"


def test_damaged_folders_are_named(tmp_path: Path):
    run(tmp_path / "run", settings(steps=50))
    shutil.copytree(tmp_path / "run", tmp_path / "short")
    (tmp_path / "short" / "trajectory.extxyz").write_text("")
    with pytest.raises(DataError, match=r"trajectory\.extxyz' is shorter"):
        run(tmp_path / "short", settings(steps=100))
    (tmp_path / "run" / "restart.npz").write_bytes(b"PK half a zip")
    with pytest.raises(DataError, match=r"cannot read .*restart\.npz"):
        run(tmp_path / "run", settings(steps=100))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ensemble": "nvt"}, "ensemble is 'nvt'; expected one of nve"),
        ({"timestep_fs": 0.0}, "timestep_fs is 0.0; expected a positive number"),
        ({"temperature_K": float("nan")}, "temperature_K is nan"),
        ({"restart_every": 0}, "restart_every is 0; expected 1 or more"),
        ({"friction_per_ps": -1.0}, "friction_per_ps is -1.0"),
        ({"ensemble": "bussi", "friction_per_ps": 0.0}, "more than 0"),
        ({"format": "xyz"}, "format is 'xyz'"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        settings(**changes)  # type: ignore[arg-type]
