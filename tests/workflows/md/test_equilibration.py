"""What a run says about itself: equilibrium, tiny cells, velocities it was given."""

from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.units import fs

from crack_md.api.runs import run_md
from crack_md.errors import StructureError
from crack_md.workflows.md.run import run_dynamics
from crack_md.workflows.md.settings import MDSettings
from crack_md.workflows.md.summary import (
    Mean,
    mean_of_correlated,
    note_of_tiny_cell,
    read_thermo,
    reasons_against_equilibrium,
)
from tests.workflows.harmonic import Harmonic, NoForces

LANGEVIN = MDSettings(temperature_K=700.0, friction_per_ps=1.0)


def test_error_of_a_mean_of_correlated_values():
    """x_t = φ x_{t−1} + noise has the variance of its mean (1+φ)/(1−φ) σ²/n."""
    rng, kept, n = np.random.default_rng(0), 0.8, 100_000
    noise = rng.standard_normal(n)
    series = np.empty(n)
    series[0] = 0.0
    for t in range(1, n):
        series[t] = kept * series[t - 1] + noise[t]
    sigma = 1 / np.sqrt(1 - kept**2)
    expected = sigma * np.sqrt((1 + kept) / (1 - kept) / n)
    assert mean_of_correlated(series).error == pytest.approx(expected, rel=0.1)
    assert mean_of_correlated(np.array([1.0, 3.0])) == Mean(2.0, None)


def test_runs_that_are_too_short_or_too_cold_say_so():
    def reasons(settings: MDSettings, time_fs: float, mean: float, error: float) -> str:
        found = reasons_against_equilibrium(
            Mean(mean, error), time_fs=time_fs, settings=settings
        )
        return " and ".join(found)

    short = "its 0.6 ps are shorter than five relaxation times of the thermostat (5 × 1"
    assert reasons(LANGEVIN, 600.0, 503.0, 20.0).startswith(short)
    assert "503 ± 20 K, and the target is 700 K" in reasons(LANGEVIN, 6e5, 503.0, 20.0)
    assert reasons(LANGEVIN, 5000.0, 680.0, 20.0) == ""
    assert reasons(LANGEVIN, 5000.0, 690.0, 1.0) == ""  # 1.4 %: as of a time step
    assert "shorter" in reasons(LANGEVIN, 4990.0, 700.0, 5.0)
    npt = replace(LANGEVIN, ensemble="npt", pressure_time_fs=2000.0)
    assert "of the barostat (5 × 2 ps)" in reasons(npt, 9000.0, 700.0, 5.0)
    assert "thermostat" not in reasons(npt, 9000.0, 700.0, 5.0)
    for free in ({"ensemble": "nve"}, {"friction_per_ps": 0.0}):
        assert reasons(replace(LANGEVIN, **free), 10.0, 350.0, 1.0) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(("steps", "equilibrated"), [(100, False), (700, True)])
def test_summary_tells_a_short_run_from_a_long_one(
    steps: int, equilibrated: bool, tmp_path: Path
):
    """Heat baths of 50 fs, for 0.2 ps and for 3.5 ps."""
    sites = 8.0 * np.arange(30)[:, None] * np.ones(3)
    settings = MDSettings(
        temperature_K=600.0,
        timestep_fs=5.0 if equilibrated else 2.0,
        steps=steps,
        friction_per_ps=20.0,
        log_every=2,
        stop_at_broken_bonds=False,
    )
    calculator = Harmonic(sites, np.linspace(1.0, 4.0, 30)[:, None])
    result = run_dynamics(
        Atoms("Cu30", sites), calculator, settings=settings, folder=tmp_path
    )
    assert result.summary["equilibrated"] is equilibrated
    assert bool(result.summary["notes"]) is not equilibrated
    error = result.summary["second_half_error"]["temperature_K"]
    assert 3.0 < error < 80.0  # 2T/√(6N) is 90 K for one moment


def test_cells_that_repeat_within_ten_angstroms():
    assert "repeats after 2.6 Å" in note_of_tiny_cell(bulk("Cu", a=3.61))
    assert note_of_tiny_cell(bulk("Cu", a=3.61, cubic=True) * (3, 3, 3)) == ""
    slab = fcc111("Cu", (2, 4, 3), a=3.61, vacuum=3.0)
    assert "repeats after 5.1 Å" in note_of_tiny_cell(slab)
    assert note_of_tiny_cell(fcc111("Cu", (4, 4, 3), a=3.61, vacuum=1.0)) == ""
    assert note_of_tiny_cell(Atoms("Cu")) == ""
    # vectors of 20 Å and more, and yet a − b is 4 Å long
    skewed = Atoms("Cu", cell=[[20, 0, 0], [20, 4, 0], [0, 0, 20]], pbc=True)
    assert "repeats after 4.0 Å" in note_of_tiny_cell(skewed)


def moving(**columns: np.ndarray) -> Atoms:
    """Return eight atoms with a kinetic energy of 0.681 eV, ½ m v² each."""
    atoms = bulk("Cu", cubic=True, a=9.0) * (2, 1, 1)
    speed = np.sqrt(2 * 0.681 / (8 * atoms.get_masses()[0]))
    given = np.zeros((8, 3))
    given[:, 0] = speed * (-1.0) ** np.arange(8)
    for name, factor in columns.items():
        atoms.new_array(name, factor * given)
    return atoms


def test_velocities_of_a_file_are_taken(tmp_path: Path):
    ase.io.write(tmp_path / "moving.extxyz", moving(velocities=1.0))
    assert "velocities:R:3" in (tmp_path / "moving.extxyz").read_text()
    result = run_md(
        tmp_path / "moving.extxyz",
        NoForces(),
        out=tmp_path / "out",
        ensemble="nve",
        steps=2,
        initial_temperature_K=50.0,
    )
    thermo = read_thermo(tmp_path / "out" / "thermo.csv")
    assert thermo["kinetic_energy_eV"] == pytest.approx(0.681, abs=1e-6)
    notes = " ".join(result.summary["notes"])
    assert "ASE's unit, 0.0982 Å/fs" in notes
    assert "temperature of 50 K is not used" in notes


def test_momenta_and_velocities_that_agree_are_one(tmp_path: Path):
    atoms = moving(velocities=1.0)
    atoms.set_momenta(atoms.arrays["velocities"] * atoms.get_masses()[:, None])
    settings = MDSettings(ensemble="nve", steps=1, log_every=1)
    run_dynamics(atoms, NoForces(), settings=settings, folder=tmp_path / "out")
    thermo = read_thermo(tmp_path / "out" / "thermo.csv")
    assert thermo["kinetic_energy_eV"][0] == pytest.approx(0.681, abs=1e-9)
    atoms.set_momenta(2 * atoms.get_momenta())
    with pytest.raises(StructureError, match="momenta and velocities that disagree"):
        run_dynamics(atoms, NoForces(), settings=settings, folder=tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"velo": fs},
            r"column 'velo', whose unit is not known; divide Å/fs by 0\.098",
        ),
        ({"vel": fs}, "column 'vel'"),
        ({"velocities": np.nan}, "not finite"),
    ],
)
def test_velocities_that_cannot_be_taken(
    columns: dict[str, float], message: str, tmp_path: Path
):
    with pytest.raises(StructureError, match=message):
        run_md(moving(**columns), NoForces(), out=tmp_path / "out", steps=1)
    assert not (tmp_path / "out").exists()


class Near(NoForces):
    """Says at one call that atoms were too near."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.near = call

    def calculate(self, *args: object, **kwargs: object) -> None:
        super().calculate(*args, **kwargs)  # type: ignore[arg-type]
        self.results["domain_distance"] = 1.25 if self.calls == self.near else 0.8


def test_atoms_nearer_than_the_model_knows_are_told(tmp_path: Path):
    """Once anywhere in the run, before its restart file as well."""
    settings = MDSettings(ensemble="nve", steps=20, restart_every=10, log_every=5)
    for name, call, told in (("never", 10**6, False), ("once", 4, True)):
        run = {"settings": settings, "folder": tmp_path / name}
        atoms = moving(velocities=1.0)
        found = run_dynamics(atoms, Near(call), **run).summary  # type: ignore[arg-type]
        assert found["domain_distance"] == (1.25 if told else 0.8)
        assert any("domain_distance 1.25" in note for note in found["notes"]) is told
    run["settings"] = replace(settings, steps=40)
    more = run_dynamics(atoms, Near(10**6), **run).summary  # type: ignore[arg-type]
    assert more["domain_distance"] == 1.25
