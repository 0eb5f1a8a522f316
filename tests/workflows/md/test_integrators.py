import numpy as np
import pytest
from ase import Atoms, units
from ase.constraints import FixAtoms, FixBondLengths, FixedPlane

from crack_md.errors import ConfigError
from crack_md.workflows.md.integrators import (
    SplitDynamics,
    bussi_bath,
    degrees_of_freedom,
    draw_velocities,
    langevin_bath,
    temperature,
)
from tests.workflows.harmonic import Harmonic, NoForces

STIFFNESS, MASS = 4.0, 16.0  # eV/Å², amu
OMEGA = np.sqrt(STIFFNESS / MASS)  # per ASE time unit


def oscillators(count: int) -> Atoms:
    """Return atoms at rest at the bottom of their springs."""
    sites = 10.0 * np.arange(count)[:, None] * np.ones(3)
    atoms = Atoms(f"O{count}", sites, masses=[MASS] * count)
    atoms.calc = Harmonic(sites, STIFFNESS)
    return atoms


def test_verlet_oscillates_at_its_own_frequency():
    """x_n = x₀ cos(n ω' Δt) with cos(ω' Δt) = 1 − (ωΔt)²/2, to round-off."""
    timestep = 0.5 / OMEGA
    atoms = oscillators(1)
    atoms.positions[0, 0] += 0.1
    dynamics = SplitDynamics(atoms, timestep, np.random.default_rng(0))
    phase = np.arccos(1.0 - 0.5 * (OMEGA * timestep) ** 2)
    for n in range(1, 200):
        dynamics.step()
        assert atoms.positions[0, 0] == pytest.approx(0.1 * np.cos(n * phase), abs=1e-9)


def energy_spread(timestep: float, duration: float) -> float:
    atoms = oscillators(1)
    atoms.positions[0] += 0.1
    dynamics = SplitDynamics(atoms, timestep, np.random.default_rng(0))
    energies = []
    for _ in range(round(duration / timestep)):
        dynamics.step()
        energies.append(atoms.get_total_energy())
    return float(np.std(energies))


def test_energy_of_verlet_fluctuates_as_the_square_of_the_step():
    """E − E' = ½k x² (ωΔt)²/4 with E' constant: halving Δt divides the spread by 4."""
    timestep = 0.05 / OMEGA
    coarse = energy_spread(timestep, 120.0 / OMEGA)
    fine = energy_spread(timestep / 2, 120.0 / OMEGA)
    assert coarse / fine == pytest.approx(4.0, rel=4e-3)
    # the variance of x² of a cosine is amplitude⁴/8; three directions move together
    expected = 3 * 0.5 * STIFFNESS * (OMEGA * timestep) ** 2 / 4 * 0.1**2 / np.sqrt(8)
    assert coarse == pytest.approx(expected, rel=2e-2)


def test_baoab_has_exact_variance_and_its_own_kinetic_temperature():
    """⟨x²⟩ = kT/k at any step; ⟨p²⟩/m = kT (1 − (ωΔt)²/4)."""
    kelvin, timestep = 300.0, 1.0 / OMEGA
    kT = units.kB * kelvin
    atoms = oscillators(300)
    sites = atoms.positions.copy()
    bath = langevin_bath(
        temperature_K=kelvin, friction_per_ps=1000.0 * units.fs * OMEGA
    )
    dynamics = SplitDynamics(atoms, timestep, np.random.default_rng(1), bath)
    positions, momenta = [], []
    for step in range(1500):
        dynamics.step()
        if step >= 100:
            positions.append((atoms.positions - sites) ** 2)
            momenta.append(atoms.get_momenta() ** 2 / MASS)
    for found, expected in ((positions, kT / STIFFNESS), (momenta, 0.75 * kT)):
        each = np.mean(found, axis=0).ravel()  # independent oscillators
        error = each.std() / np.sqrt(each.size)
        assert error < 0.01 * expected
        assert abs(each.mean() - expected) < 3 * error


def test_effective_energy_of_langevin_does_not_wander():
    """Total energy − heat has only Verlet's fluctuation, though the energy grows."""
    atoms = oscillators(20)
    bath = langevin_bath(temperature_K=300.0, friction_per_ps=20.0)
    dynamics = SplitDynamics(atoms, 0.05 / OMEGA, np.random.default_rng(2), bath)
    conserved, energies = [], []
    for _ in range(2000):
        dynamics.step()
        energies.append(atoms.get_total_energy())
        conserved.append(energies[-1] - dynamics.heat)
    assert energies[-1] > 0.5
    assert np.ptp(conserved) < 2e-3 * energies[-1]


def test_bussi_draws_kinetic_energies_of_the_canonical_ensemble():
    """A strong bath makes every K an independent Γ(dof/2, kT), at any dof."""
    kelvin = 500.0
    for count in (1, 4):
        atoms = Atoms(f"Cu{count}", np.eye(count, 3))
        dof = 3 * count
        bath = bussi_bath(temperature_K=kelvin, rate_per_ps=1e6, dof=dof)
        rng = np.random.default_rng(3)
        atoms.set_momenta(rng.standard_normal((count, 3)))
        energies = []
        for _ in range(4000):
            bath(atoms, 1.0, rng)
            energies.append(atoms.get_kinetic_energy() / (units.kB * kelvin))
        mean, spread = np.mean(energies), np.var(energies)
        assert mean == pytest.approx(dof / 2, abs=4 * np.sqrt(dof / 2 / 4000))
        assert spread == pytest.approx(dof / 2, rel=0.15)


def test_bussi_keeps_directions_and_total_momentum():
    atoms = Atoms("Cu3", np.eye(3), momenta=[[1, 2, 3], [0, 0, 1], [-1, -2, -4]])
    bath = bussi_bath(temperature_K=300.0, rate_per_ps=10.0, dof=6)
    before = atoms.get_momenta()
    bath(atoms, 10.0 * units.fs, np.random.default_rng(0))
    ratio = atoms.get_momenta()[before != 0] / before[before != 0]
    assert np.allclose(ratio, ratio[0])
    assert ratio[0] != 1.0
    assert np.allclose(atoms.get_momenta().sum(axis=0), 0.0)


def test_langevin_leaves_fixed_atoms_alone_and_heats_the_others():
    atoms = oscillators(200)
    atoms.set_constraint([FixAtoms(range(100)), FixedPlane([150], [0, 0, 1])])
    fixed = atoms.positions[:100].copy()
    height = atoms.positions[150, 2]
    bath = langevin_bath(temperature_K=300.0, friction_per_ps=100.0)
    dynamics = SplitDynamics(atoms, 0.3 / OMEGA, np.random.default_rng(4), bath)
    dof = degrees_of_freedom(atoms, "langevin")
    assert dof == 299
    temperatures = []
    for step in range(2000):
        dynamics.step()
        if step > 300:
            temperatures.append(temperature(atoms.get_kinetic_energy(), dof))
    assert np.array_equal(atoms.positions[:100], fixed)
    assert atoms.positions[150, 2] == height
    assert not atoms.get_momenta()[:100].any()
    expected = 300.0 * (1 - 0.3**2 / 4)
    assert np.mean(temperatures) == pytest.approx(expected, rel=0.02)


def test_rigid_bonds_stay_and_share_the_heat_of_their_freedoms():
    count = 15
    atoms = Atoms("CO" * count, 20.0 * np.random.default_rng(0).random((2 * count, 3)))
    atoms.positions[1::2] = atoms.positions[::2] + np.array([0.0, 0.0, 1.15])
    atoms.set_constraint(FixBondLengths([(2 * n, 2 * n + 1) for n in range(count)]))
    atoms.calc = NoForces()
    dof = degrees_of_freedom(atoms, "langevin")
    assert dof == 5 * count
    bath = langevin_bath(temperature_K=300.0, friction_per_ps=100.0)
    rng = np.random.default_rng(5)
    draw_velocities(atoms, temperature_K=300.0, ensemble="langevin", rng=rng)
    dynamics = SplitDynamics(atoms, 1.0 * units.fs, rng, bath)
    kinetic = []
    for _ in range(400):
        dynamics.step()
        kinetic.append(temperature(atoms.get_kinetic_energy(), dof))
    lengths = np.linalg.norm(atoms.positions[1::2] - atoms.positions[::2], axis=1)
    assert np.allclose(lengths, 1.15, atol=1e-6)
    assert np.mean(kinetic) == pytest.approx(300.0, rel=0.04)


def test_rigid_rotor_turns_for_ever():
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.15]], momenta=[[3, 0, 0], [-3, 0, 0]])
    atoms.set_constraint(FixBondLengths([(0, 1)]))
    atoms.calc = NoForces()
    dynamics = SplitDynamics(atoms, 1.0 * units.fs, np.random.default_rng(0))
    energy, spin = atoms.get_kinetic_energy(), atoms.get_angular_momentum()
    for _ in range(500):
        dynamics.step()
    assert atoms.get_kinetic_energy() == pytest.approx(energy, rel=1e-3)
    assert np.allclose(atoms.get_angular_momentum(), spin, rtol=1e-3)


@pytest.mark.parametrize(
    ("symbols", "pbc", "ensemble", "expected"),
    [
        ("Cu4", True, "langevin", 12),
        ("Cu4", True, "nve", 9),
        ("Cu4", False, "bussi", 6),
        ("CO", False, "nve", 1),
        ("CO", False, "langevin", 6),
    ],
)
def test_degrees_of_freedom(symbols: str, pbc: bool, ensemble: str, expected: int):
    corners = [[0, 0, 0], [1.2, 0, 0], [0, 1.2, 0], [0, 0, 1.2]]
    atoms = Atoms(symbols, corners[: len(Atoms(symbols))], cell=[9] * 3, pbc=pbc)
    assert degrees_of_freedom(atoms, ensemble) == expected  # type: ignore[arg-type]


def test_nothing_free_to_move_is_refused():
    atoms = Atoms("Cu2", np.eye(2, 3), constraint=FixAtoms([0, 1]))
    with pytest.raises(ConfigError, match="no atom is free"):
        degrees_of_freedom(atoms, "langevin")


def test_first_velocities_have_the_temperature_and_no_net_motion():
    rng = np.random.default_rng(6)
    atoms = Atoms("CuPtO", [[0, 0, 0], [2, 0, 0], [0, 2, 0]])
    draw_velocities(atoms, temperature_K=450.0, ensemble="nve", rng=rng)
    dof = degrees_of_freedom(atoms, "nve")
    assert dof == 3
    assert temperature(atoms.get_kinetic_energy(), dof) == pytest.approx(450.0)
    assert np.allclose(atoms.get_momenta().sum(axis=0), 0.0)
    assert np.allclose(atoms.get_angular_momentum(), 0.0)
