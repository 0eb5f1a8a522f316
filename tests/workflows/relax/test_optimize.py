from pathlib import Path

import ase.io
import numpy as np
import pytest
import spglib
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.spacegroup import crystal

from crack_md.errors import ConfigError, StructureError
from crack_md.workflows.relax.relax import (
    RelaxSettings,
    relax_atoms,
    relax_fcc_constant,
    require_stress,
)
from tests.workflows.harmonic import Harmonic


def stress_in_gpa(atoms: Atoms) -> np.ndarray:
    return np.asarray(atoms.get_stress()) / units.GPa


@pytest.mark.parametrize("optimizer", ["LBFGS", "BFGS", "FIRE", "BFGSLineSearch"])
def test_springs_come_to_rest_where_they_hang(optimizer: str):
    sites = 5.0 * np.arange(3)[:, None] * np.ones(3)
    start = Atoms("Cu3", sites)
    start.rattle(0.2, seed=0)
    settings = RelaxSettings(optimizer=optimizer, fmax=1e-3, steps=500)
    result = relax_atoms(start, Harmonic(sites, 4.0), settings=settings)
    assert result.converged
    assert np.abs(result.atoms.positions - sites).max() < 1e-3 / 4.0
    assert result.energy == pytest.approx(0.0, abs=1e-6)
    assert not np.allclose(start.positions, sites)


def test_full_cell_finds_the_lattice_constant():
    strained = bulk("Cu", cubic=True, a=3.7)
    strained.set_cell(strained.cell.array * [1.0, 1.02, 0.98], scale_atoms=True)
    settings = RelaxSettings(cell="full", fmax=1e-4)
    result = relax_atoms(strained, EMT(), settings=settings)
    assert result.converged
    lengths = result.atoms.cell.lengths()
    assert lengths == pytest.approx([relax_fcc_constant("Cu", EMT())] * 3, abs=1e-3)
    assert np.abs(stress_in_gpa(result.atoms)).max() < 0.01


def test_isotropic_cell_keeps_its_shape():
    strained = bulk("Cu", cubic=True, a=3.7)
    strained.set_cell(strained.cell.array * [1.0, 1.02, 1.0], scale_atoms=True)
    settings = RelaxSettings(cell="isotropic", fmax=1e-4)
    result = relax_atoms(strained, EMT(), settings=settings)
    lengths = result.atoms.cell.lengths()
    assert lengths[1] / lengths[0] == pytest.approx(1.02)
    stress = stress_in_gpa(result.atoms)
    assert stress[:3].mean() == pytest.approx(0.0, abs=0.02)
    assert abs(stress[1] - stress[0]) > 0.5


def test_flat_cell_keeps_its_vacuum():
    slab = fcc111("Cu", (1, 1, 4), a=3.8, vacuum=6.0, periodic=True)
    height = slab.cell[2, 2]
    settings = RelaxSettings(cell="xy", fmax=1e-3)
    result = relax_atoms(slab, EMT(), settings=settings)
    assert result.converged
    assert result.atoms.cell[2, 2] == pytest.approx(height)
    assert result.atoms.cell[0, 0] < slab.cell[0, 0] - 0.05
    assert np.abs(stress_in_gpa(result.atoms)[[0, 1, 5]]).max() < 0.05


def test_pressure_is_minus_the_stress():
    settings = RelaxSettings(cell="full", fmax=1e-4, pressure_GPa=10.0)
    result = relax_atoms(bulk("Cu", cubic=True), EMT(), settings=settings)
    assert stress_in_gpa(result.atoms)[:3] == pytest.approx([-10.0] * 3, abs=0.02)


def test_symmetry_is_kept_and_the_constraint_does_not_stay():
    ordered = crystal(
        ("Cu", "Au"),
        [(0, 0, 0), (0, 0.5, 0.5)],
        spacegroup=221,
        cellpar=[3.9] * 3 + [90] * 3,
    )
    ordered.rattle(5e-4, seed=1)
    numbers = {}
    for symmetry in (True, False):
        settings = RelaxSettings(symmetry=symmetry, fmax=0.5, cell="full", steps=30)
        final = relax_atoms(ordered, EMT(), settings=settings).atoms
        cell = (final.cell.array, final.get_scaled_positions(), final.numbers)
        numbers[symmetry] = spglib.get_symmetry_dataset(cell, symprec=1e-6).number
        assert not final.constraints
    assert numbers == {True: 221, False: 1}


def test_constraints_hold_and_stay():
    slab = fcc111("Cu", (1, 1, 3), a=3.5, vacuum=6.0, periodic=True)
    slab.set_constraint(FixAtoms([0, 1]))
    result = relax_atoms(slab, EMT(), settings=RelaxSettings(fmax=0.01))
    assert np.array_equal(result.atoms.positions[:2], slab.positions[:2])
    assert isinstance(result.atoms.constraints[0], FixAtoms)
    assert result.max_force < 0.01
    # stored forces are those of the model, before the constraint
    assert np.abs(result.atoms.get_forces(apply_constraint=False)[0]).max() > 0.05


def test_trajectory_goes_from_start_to_end(tmp_path: Path):
    start = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.6]])
    path = tmp_path / "dimer.traj"
    result = relax_atoms(start, EMT(), settings=RelaxSettings(), trajectory=path)
    frames = ase.io.read(path, ":")
    assert np.array_equal(frames[0].positions, start.positions)
    assert np.allclose(frames[-1].positions, result.atoms.positions)
    assert len(frames) == result.n_steps + 1
    assert isinstance(frames[-1].calc, SinglePointCalculator)


def test_what_cannot_be_is_refused():
    with pytest.raises(
        ConfigError, match=r"unknown optimizer 'SGD'; expected one of: .*FIRE"
    ):
        RelaxSettings(optimizer="SGD")
    with pytest.raises(ConfigError, match="cell is 'z'; expected one of none"):
        RelaxSettings(cell="z")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cell 'full' needs stress"):
        require_stress(Harmonic(np.zeros((1, 3)), 1.0), "full")
    require_stress(EMT(), "full")
    flat = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    with pytest.raises(StructureError, match=r"'full' needs a structure .* along all"):
        relax_atoms(flat, EMT(), settings=RelaxSettings(cell="full"))
    with pytest.raises(StructureError, match="symmetry needs"):
        relax_atoms(flat, EMT(), settings=RelaxSettings(symmetry=True))
