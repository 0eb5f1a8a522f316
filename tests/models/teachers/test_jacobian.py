"""Central differences of forces, against Jacobians that are known."""

from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator

from crack_md.models.teachers import AseTeacher, load_teacher
from crack_md.models.teachers.base import draw_coordinates, jacobian_rows

RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.normal(size=(9, 9))
"""−∂F/∂r of three atoms, not symmetric: these forces are no gradient."""


class Linear(Calculator):
    """F = −M r, whatever the energy."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def calculate(self, atoms=None, properties=(), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        forces = -MATRIX @ self.atoms.positions.ravel()
        self.results = {"energy": 0.0, "forces": forces.reshape(3, 3)}


def test_linear_forces_have_their_matrix_as_jacobian():
    atoms = Atoms("Cu3", RANDOM.normal(size=(3, 3)), cell=np.eye(3) * 9, pbc=True)
    atom, axis = np.array([2, 0]), np.array([1, 2])

    (rows,) = jacobian_rows(AseTeacher(Linear()), [atoms], [(atom, axis)])

    # what moves is coordinate 3·2 + 1, so all forces answer with that column of M
    for row, coordinate in zip(rows.values, (7, 2), strict=True):
        expected = -MATRIX[:, coordinate].reshape(3, 3)
        np.testing.assert_allclose(row, expected, rtol=1e-5)
    assert rows.values.dtype == np.float32


def test_rows_of_a_potential_are_symmetric_and_blind_to_translation():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    all_coordinates = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)

    (rows,) = jacobian_rows(load_teacher("emt"), [atoms], [all_coordinates])

    hessian = -rows.values.reshape(12, 12)
    assert np.abs(hessian).max() > 1
    # the nine neglected terms of third order in h = 0.01 Å are below 1 %
    np.testing.assert_allclose(hessian, hessian.T, atol=0.02)
    np.testing.assert_allclose(rows.values.sum(axis=1), 0, atol=1e-4)


def test_rows_of_emt_are_minus_its_numerical_hessian():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=3)

    (rows,) = jacobian_rows(
        load_teacher("emt"), [atoms], [(np.array([1]), np.array([0]))], step_A=0.001
    )

    # the second derivative from energies alone, nothing of the forces
    h = 0.003
    for other, direction in ((1, 0), (3, 2)):
        energy = {}
        for one in (1, -1):
            for two in (1, -1):
                moved = atoms.copy()
                moved.positions[1, 0] += one * h
                moved.positions[other, direction] += two * h
                (labels,) = load_teacher("emt").predict([moved])
                energy[one, two] = labels.energy
        second = energy[1, 1] - energy[1, -1] - energy[-1, 1] + energy[-1, -1]
        expected = -second / (4 * h**2)
        found = float(rows.values[0, other, direction])
        largest = float(np.abs(rows.values).max())
        assert found == pytest.approx(expected, abs=0.005 * largest)


def test_structures_keep_their_own_rows():
    one, two = bulk("Cu", cubic=True), bulk("Au")
    one.rattle(0.1, seed=2)
    coordinates = [(np.array([1]), np.array([0])), (np.array([0]), np.array([2]))]

    together = jacobian_rows(load_teacher("emt"), [one, two], coordinates)
    alone = [
        jacobian_rows(load_teacher("emt"), [atoms], [drawn])[0]
        for atoms, drawn in zip([one, two], coordinates, strict=True)
    ]

    for first, second in zip(together, alone, strict=True):
        np.testing.assert_array_equal(first.values, second.values)
        np.testing.assert_array_equal(first.atom, second.atom)


def test_fewer_rows_are_the_first_of_more():
    free = np.array([False, True, False, True])

    many, few = (
        np.stack(draw_coordinates(free, n_rows, np.random.default_rng(0)))
        for n_rows in (8, 3)
    )

    np.testing.assert_array_equal(many[:, :3], few)


@pytest.mark.parametrize(("n_rows", "n_different"), [(4, 4), (6, 6), (8, 6)])
def test_free_coordinates_are_drawn_once_while_they_last(n_rows, n_different):
    free = np.array([False, True, False, True])

    atom, axis = draw_coordinates(free, n_rows, np.random.default_rng(0))

    assert len(atom) == len(axis) == n_rows
    assert set(atom) <= {1, 3}
    assert set(axis) <= {0, 1, 2}
    assert len(set(zip(atom, axis, strict=True))) == n_different
