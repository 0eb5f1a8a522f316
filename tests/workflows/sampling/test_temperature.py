from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import molecule

from crack_md.data.torsions import BondGraph, find_bonds
from crack_md.workflows.sampling.temperature import (
    Temperature,
    bond_temperature,
    count_vibrations,
    measure_thermometers,
    virial_temperature,
)

CHAIN = BondGraph((1, 1, 1, 1), ((0, 1), (1, 2), (2, 3)))


def springs(temperature_K: float, frames: int = 40_000) -> tuple[np.ndarray, ...]:
    """Return samples of ½k|x − x₀|² per coordinate, center of mass and turns at rest.

    Of the 12 coordinates of four atoms only six move: those of U = ½k|Q(x − x₀)|² with
    orthonormal Q without translations and rotations about x₀.
    """
    rng = np.random.default_rng(0)
    k = 30.0
    origin = np.array([[0, 0, 0], [1, 0, 0], [1.3, 1, 0], [1.3, 1.5, 1.0]])
    moves = [np.tile(axis, (4, 1)) for axis in np.eye(3)]
    moves += [np.cross(axis, origin - origin.mean(axis=0)) for axis in np.eye(3)]
    rigid = np.stack([move.ravel() for move in moves])
    basis = np.linalg.svd(rigid)[2][6:]
    width = np.sqrt(units.kB * temperature_K / k)
    q = width * rng.normal(size=(frames, 6))
    positions = origin + (q @ basis).reshape(frames, 4, 3)
    return positions, (-k * q @ basis).reshape(frames, 4, 3)


def test_oscillators_of_known_temperature():
    positions, forces = springs(500.0)
    virial = virial_temperature(positions, forces)
    assert virial.value == pytest.approx(500.0, abs=4 * virial.error)
    # −Σ(x − x₀)·F averages kT per mode, with the spread of a χ² of six; the part
    # −Σx₀·F averages zero and makes the noise
    assert virial.error < 40
    turned = virial_temperature(positions + np.array([5.0, -3.0, 1.0]), forces)
    assert turned.value == pytest.approx(virial.value)


def pairs(temperature_K: float, frames: int = 20_000) -> tuple[np.ndarray, ...]:
    """Return exact samples of a chain of bonds ½k(d − d₀)² that point anywhere.

    Each bond vector has the density d² exp(−k(d − d₀)²/2kT) dd dΩ.
    """
    rng = np.random.default_rng(1)
    k, d0 = 30.0, 1.1
    grid = np.linspace(0.5, 1.8, 20_001)
    density = grid**2 * np.exp(-k * (grid - d0) ** 2 / (2 * units.kB * temperature_K))
    total = np.cumsum(density) / density.sum()
    length = np.interp(rng.uniform(size=(frames, 3, 1)), total, grid)
    vectors = rng.normal(size=(frames, 3, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    steps = np.concatenate([np.zeros((frames, 1, 3)), length * vectors], axis=1)
    tension = -k * (length - d0) * vectors  # on the far atom of each bond
    forces = np.zeros((frames, 4, 3))
    forces[:, 1:] += tension
    forces[:, :-1] -= tension
    return np.cumsum(steps, axis=1), forces


@pytest.mark.parametrize("temperature_K", [300.0, 650.0])
def test_bonds_of_known_temperature(temperature_K: float):
    found = bond_temperature(*pairs(temperature_K), CHAIN)
    assert found.value == pytest.approx(temperature_K, abs=3 * found.error)
    assert found.error < 0.02 * temperature_K


def test_a_molecule_that_turns_has_three_more_terms_in_its_virial():
    found = virial_temperature(*pairs(500.0, frames=200_000))
    expected = 500.0 * (3 * 4 - 3) / (3 * 4 - 6)
    assert found.value == pytest.approx(expected, abs=3 * found.error)
    both = measure_thermometers(*pairs(500.0), CHAIN)
    assert both.turning == 1.5
    assert both.virial is not None
    assert both.virial.is_off(500.0, tolerance=0.3)
    assert not both.virial.is_off(500.0, tolerance=0.3, spread=both.turning)


def test_what_is_off():
    found = Temperature(621.0, 33.0)
    assert str(found) == "621 ± 33 K"
    assert not found.is_off(500.0, tolerance=0.3)
    assert found.is_off(470.0, tolerance=0.3)
    assert found.is_off(900.0, tolerance=0.3, spread=2.0)
    assert Temperature(float("nan"), 0.0).is_off(500.0, tolerance=0.3)
    assert measure_thermometers(pairs(500.0)[0], None, CHAIN).virial is None


def test_vibrations_of_bent_and_of_linear_molecules():
    bent, line = molecule("H2O").positions, molecule("CO2").positions
    rng = np.random.default_rng(0)
    shake = 0.04 * rng.normal(size=(100, 3, 3))
    assert count_vibrations(bent + shake) == 3
    assert count_vibrations(line + shake) == 4


def test_forces_of_stiffer_bonds_show():
    positions, forces = pairs(500.0)
    assert bond_temperature(positions, 1.2 * forces, CHAIN).is_off(
        500.0, tolerance=0.15
    )
    assert not bond_temperature(positions, forces, CHAIN).is_off(500.0, tolerance=0.1)


@pytest.mark.parametrize(
    ("name", "labels", "virial_K", "bond_K"),
    [
        ("ethanol", "old_forces", 621, 650),
        ("aspirin", "old_forces", 526, 549),
        ("ethanol", "forces", -97, 678),
        ("aspirin", "forces", -417, 584),
    ],
)
def test_md17(references: Path, name: str, labels: str, virial_K: float, bond_K: float):
    frames: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for path in (references / "data" / "rmd17").glob(f"rmd17_{name}_*.npz"):
        with np.load(path) as stored:
            numbers = stored["nuclear_charges"].astype(int)
            parts = zip(stored["coords"], stored[labels], strict=True)
            frames |= dict(zip(stored["old_indices"].tolist(), parts, strict=True))
    rows = [frames[index] for index in sorted(frames)]
    positions = np.array([row[0] for row in rows])
    forces = np.array([row[1] for row in rows]) * units.kcal / units.mol
    virial = virial_temperature(positions, forces)
    assert virial.value == pytest.approx(virial_K, abs=1)
    assert 20 < virial.error < 36
    bonds = bond_temperature(positions, forces, find_bonds(numbers, positions))
    assert bonds.value == pytest.approx(bond_K, abs=1)
    assert bonds.error < 16
