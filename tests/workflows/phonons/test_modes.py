from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.vibrations import Vibrations

from crack_md.errors import StructureError
from crack_md.workflows.phonons.modes import adsorbate_atoms, local_modes
from tests.workflows.harmonic import Harmonic, LinearForces


def test_an_atom_on_a_spring():
    """ν̄ = √(k/m) / (2πc): 24 N/m, as a 1.498 eV/Å² spring is, on 16 u."""
    sites = np.array([[0.0, 0, 0], [5.0, 0, 0]])
    atoms = Atoms("PtO", sites, masses=[195.0, 16.0])
    modes = local_modes(atoms, Harmonic(sites, 1.498), indices=[1])
    newtons_per_meter = 1.498 * units._e * 1e20
    hertz = np.sqrt(newtons_per_meter / (16.0 * units._amu)) / (2 * np.pi)
    assert modes.wavenumber == pytest.approx([hertz / units._c / 100] * 3, rel=1e-6)
    assert modes.wavenumber[0] == pytest.approx(159.5, abs=0.1)
    energy = hertz * units._hplanck / units._e
    assert modes.zero_point_energy == pytest.approx(1.5 * energy, rel=1e-6)
    assert modes.asymmetry == 0.0


def test_masses_and_imaginary_modes():
    sites = np.array([[0.0, 0, 0], [5.0, 0, 0]])
    atoms = Atoms("HO", sites)
    stiffness = np.diag([-4.0, -4.0, 1.0, -16.0, -16.0, -16.0])
    modes = local_modes(atoms, LinearForces(sites, stiffness), indices=[0, 1])
    masses = atoms.get_masses()
    squares = [-1 / masses[0], *[16 / masses[1]] * 3, *[4 / masses[0]] * 2]
    squares = np.sort(squares)
    expected = np.sign(squares) * np.sqrt(np.abs(squares))
    ratio = modes.energy_eV / expected
    assert np.allclose(ratio, ratio[0])
    assert modes.as_dict()["n_imaginary"] == 1
    assert np.allclose(np.abs(modes.vectors[0]), [[0, 0, 1], [0, 0, 0]], atol=1e-6)
    real = modes.energy_eV[1:]
    assert modes.zero_point_energy == pytest.approx(0.5 * real.sum())


def test_agrees_with_ase_on_oxygen_on_copper(tmp_path: Path):
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0, periodic=True)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slab.set_constraint(FixAtoms([0, 1]))
    modes = local_modes(slab, EMT(), indices=adsorbate_atoms(slab))
    slab.calc = EMT()
    other = Vibrations(slab, indices=[3], delta=0.01, name=str(tmp_path / "vib"))
    other.run()
    frequencies = other.get_frequencies()
    expected = np.sort(np.where(frequencies.imag, -frequencies.imag, frequencies.real))
    assert modes.wavenumber == pytest.approx(expected, rel=1e-6)


def test_asymmetry_of_the_hessian():
    sites = np.zeros((1, 3))
    jacobian = -np.array([[2.0, 0.3, 0], [0.0, 2.0, 0], [0, 0, 2.0]])
    modes = local_modes(Atoms("O"), LinearForces(sites, jacobian), indices=[0])
    assert modes.asymmetry == pytest.approx(np.sqrt(2) * 0.3 / np.sqrt(12.09))


def test_adsorbates_are_found_by_tags_or_by_element():
    slab = fcc111("Pt", (2, 2, 3), vacuum=6.0, periodic=True)
    add_adsorbate(slab, molecule("OH"), 1.5, "fcc")
    assert adsorbate_atoms(slab) == (12, 13)
    slab.set_tags([0] * 8 + [1] * 4 + [1, 2])
    assert adsorbate_atoms(slab) == (13,)
    with pytest.raises(StructureError, match="no adsorbate found"):
        adsorbate_atoms(fcc111("Pt", (1, 1, 3), vacuum=6.0))
    with pytest.raises(StructureError, match="no adsorbate found"):
        adsorbate_atoms(molecule("H2O"))


@pytest.mark.parametrize(
    "turn",
    [
        lambda slab: slab.rotate(120, (1, 1, 1), rotate_cell=True),
        lambda slab: slab.rotate(180, "x", rotate_cell=True),
        lambda slab: slab.rotate(75, (3, 1, 2), rotate_cell=True),
        lambda slab: slab.set_cell(slab.cell.array[[1, 2, 0]]),
        lambda slab: (slab.translate([0, 0, 11.5]), slab.wrap()),
    ],
    ids=["into yz", "upside down", "anyhow", "normal second", "cut by the cell"],
)
def test_adsorbates_are_found_wherever_the_surface_looks(turn: Callable[[Atoms], None]):
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0, periodic=True)
    add_adsorbate(slab, molecule("OH"), 1.5, "fcc")
    turn(slab)
    assert adsorbate_atoms(slab) == (12, 13)
