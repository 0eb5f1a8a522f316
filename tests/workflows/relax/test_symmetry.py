"""Symmetry that is kept beside atoms that are held."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian, FixScaled
from ase.constraints import FixConstraint as Constraint

from crack_md.errors import StructureError
from crack_md.workflows.relax.relax import RelaxSettings, relax_atoms

SYMMETRIC = RelaxSettings(symmetry=True, fmax=0.01)


def slab(*held: Constraint) -> Atoms:
    """Return five layers, the third one in a centre of inversion; not quite ideal."""
    atoms = fcc111("Cu", (1, 1, 5), a=3.4, vacuum=7.0, periodic=True)
    atoms.rattle(1e-3, seed=2)
    atoms.set_constraint(list(held))
    return atoms


def test_held_atoms_stay_where_they_are():
    start = slab(FixAtoms([2]))
    result = relax_atoms(start, EMT(), settings=SYMMETRIC)
    moved = result.atoms.positions - start.positions
    assert np.array_equal(moved[2], [0, 0, 0])
    assert np.array_equal(result.atoms.cell.array, start.cell.array)
    # both sides go apart by the same way, straight up and down
    assert moved[4, 2] > 0.02
    assert moved[[0, 1]] == pytest.approx(-moved[[4, 3]], abs=1e-6)
    assert moved[:, :2] == pytest.approx(0.0, abs=1e-6)
    # the symmetric forces fell below the limit; what is told is the real one
    real = result.atoms.copy()
    real.calc = EMT()
    assert result.max_force == pytest.approx(
        np.linalg.norm(real.get_forces(), axis=1).max()
    )


@pytest.mark.parametrize(
    "held",
    [
        FixAtoms([0, 1]),
        FixCartesian([0, 1], mask=(True, True, True)),
        FixScaled([0], mask=(False, False, True)),
        FixCartesian(range(5), mask=(True, False, False)),
    ],
    ids=["lower half", "by axes", "along c", "one axis of three"],
)
def test_constraints_that_break_the_symmetry_are_refused(held: Constraint):
    """Mapped onto free atoms, or onto atoms that are held along another axis."""
    with pytest.raises(StructureError, match="onto themselves, at atoms 0"):
        relax_atoms(slab(held), EMT(), settings=SYMMETRIC)


@pytest.mark.parametrize(
    "held",
    [
        FixAtoms([0, 2, 4]),
        FixCartesian(range(5), mask=(True, True, False)),
        FixCartesian([1, 3], mask=(False, False, True)),
    ],
    ids=["outer layers", "all along the normal", "two along their height"],
)
def test_constraints_with_the_symmetry_are_taken(held: Constraint):
    start = slab(held)
    found = relax_atoms(start, EMT(), settings=SYMMETRIC)
    probe = np.ones((5, 3))
    held.adjust_forces(start, probe)
    moved = found.atoms.positions - start.positions
    assert np.array_equal(moved[probe == 0], np.zeros((probe == 0).sum()))
    assert np.abs(moved).max() > 0.003


def test_without_held_atoms_the_start_is_made_symmetric():
    rattled = bulk("Cu", cubic=True)
    rattled.rattle(1e-3, seed=0)
    result = relax_atoms(rattled, EMT(), settings=SYMMETRIC)
    between = result.atoms.get_all_distances(mic=True)[~np.eye(4, dtype=bool)]
    assert np.ptp(between) < 1e-9
