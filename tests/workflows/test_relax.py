import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from crack_md.errors import StructureError
from crack_md.workflows.relax import relax, relax_fcc_constant


class Broken(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        self.results = {
            "energy": float("nan"),
            "forces": np.full((len(atoms), 3), np.nan),
        }


def test_dimer_finds_its_minimum() -> None:
    start = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.6]])
    result = relax(start, EMT(), fmax=1e-4)
    assert result.converged
    assert result.max_force < 1e-4
    apart = result.atoms.get_distance(0, 1)
    around = [
        Atoms("Cu2", [[0, 0, 0], [0, 0, apart + h]], calculator=EMT())
        for h in (-0.02, 0.02)
    ]
    assert all(a.get_potential_energy() > result.energy for a in around)
    assert start.positions[1, 2] == 2.6


def test_fixed_atoms_stay_and_do_not_count() -> None:
    slab = fcc111("Cu", (1, 1, 4), a=3.4, vacuum=8.0)
    slab.set_constraint(FixAtoms([0, 1]))
    result = relax(slab, EMT(), fmax=0.01)
    assert result.converged
    assert np.array_equal(result.atoms.positions[:2], slab.positions[:2])
    forces = result.atoms.get_forces(apply_constraint=False)
    assert np.abs(forces[:2]).max() > 0.01


def test_says_when_it_did_not_converge() -> None:
    slab = fcc111("Cu", (1, 1, 4), a=3.4, vacuum=8.0)
    result = relax(slab, EMT(), fmax=1e-6, steps=2)
    assert not result.converged
    assert result.n_steps == 2


def test_refuses_energies_that_are_not_numbers() -> None:
    with pytest.raises(StructureError, match="not finite"):
        relax(Atoms("Cu2", [[0, 0, 0], [0, 0, 2.6]]), Broken())


@pytest.mark.parametrize("metal", ["Pt", "Cu", "Au"])
def test_lattice_constant_is_where_the_stress_vanishes(metal: str) -> None:
    constant = relax_fcc_constant(metal, EMT())
    crystal = bulk(metal, "fcc", a=constant)
    crystal.calc = EMT()
    assert np.abs(crystal.get_stress()).max() < 2e-4
