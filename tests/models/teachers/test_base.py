"""Periodic cells for teachers, teachers as calculators, and the registry."""

from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.optimize import BFGS

from crack_md.errors import StructureError, TeacherError
from crack_md.models.teachers import (
    AseTeacher,
    TeacherCalculator,
    TeacherLabels,
    as_periodic,
    load_teacher,
)


def gap(atoms: Atoms) -> float:
    return atoms.cell[2, 2] - np.ptp(atoms.positions[:, 2])


def test_periodic_structures_stay_as_they_are():
    atoms = bulk("Cu")

    assert as_periodic(atoms) == atoms


@pytest.mark.parametrize("vacuum", [None, 1.0, 10.0])
def test_slabs_without_periodicity_along_z_get_vacuum(vacuum):
    slab = fcc111("Cu", (2, 2, 3), vacuum=vacuum)

    periodic = as_periodic(slab)

    assert periodic.pbc.all()
    assert gap(periodic) == pytest.approx(12.0)
    np.testing.assert_array_equal(periodic.positions, slab.positions)
    np.testing.assert_allclose(periodic.cell[:2], slab.cell[:2])


def test_molecules_without_a_cell_get_a_box():
    periodic = as_periodic(molecule("H2O"))

    extents = np.ptp(periodic.positions, axis=0)
    np.testing.assert_allclose(periodic.cell.lengths() - extents, 12.0)


@pytest.mark.parametrize("name", ["slab", "molecule"])
def test_the_equivalent_cell_has_the_energy_of_the_open_one(name):
    # EMT handles open boundaries itself, so it can tell
    atoms = fcc111("Cu", (2, 2, 3), vacuum=8.0) if name == "slab" else molecule("H2O")
    atoms.rattle(0.1, seed=1)
    open_one = atoms.copy()
    open_one.calc = EMT()

    (labels,) = load_teacher("emt").predict([atoms])

    assert labels.energy == pytest.approx(open_one.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(labels.forces, open_one.get_forces(), atol=1e-9)
    assert labels.node_features is None


def test_a_wire_gets_vacuum_in_two_directions():
    wire = Atoms("Cu", cell=[2.5, 0, 0], pbc=[True, False, False])

    np.testing.assert_allclose(as_periodic(wire).cell.lengths(), [2.5, 12.0, 12.0])


def test_zero_cells_with_pbc_are_refused():
    with pytest.raises(StructureError, match="cell vector of length zero"):
        as_periodic(Atoms("Cu", pbc=True))


def test_the_largest_force_is_a_norm():
    forces = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 4.9]])

    assert TeacherLabels(0.0, forces).largest_force == 5.0


def test_a_teacher_serves_as_a_calculator():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.calc = TeacherCalculator(load_teacher("emt"))

    BFGS(atoms, logfile=None).run(fmax=0.01)

    reference = bulk("Cu", cubic=True)
    reference.calc = EMT()
    assert atoms.get_potential_energy() == pytest.approx(
        reference.get_potential_energy(), abs=1e-3
    )
    assert atoms.calc.labels.energy == atoms.get_potential_energy()


def test_a_teacher_that_fails_says_on_which_structure():
    class Broken(EMT):
        def calculate(self, *arguments: object) -> None:
            raise NotImplementedError("no parameters")

    with pytest.raises(TeacherError, match="broken fails on Cu2: no parameters"):
        AseTeacher(Broken()).predict([Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]])])


def test_labels_do_not_depend_on_the_structure_before():
    """Bit for bit, or a killed run would not end with the labels of an unkilled one."""
    cells = [bulk("Cu", cubic=True) for _ in range(6)]
    for number, cell in enumerate(cells):
        cell.rattle(0.05, seed=number)
    together = AseTeacher(EMT()).predict(cells)
    for cell, label in zip(cells, together, strict=True):
        (alone,) = AseTeacher(EMT()).predict([cell])
        assert alone.energy == label.energy
        assert (alone.forces == label.forces).all()


def test_atomic_energies_add_up_where_a_calculator_has_them():
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    slab.rattle(0.1, seed=0)

    (labels,) = load_teacher("emt").predict([slab])

    assert labels.node_energy.shape == (12,)
    assert np.ptp(labels.node_energy) > 0.1
    assert labels.node_energy.sum() == pytest.approx(labels.energy, rel=1e-12)


class Parts(Calculator):
    """Says 1 eV, and of every atom what `part` says."""

    implemented_properties: ClassVar[list[str]] = ["energy", "energies", "forces"]
    part: float | None = None

    def calculate(self, atoms=None, properties=(), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 1.0, "forces": np.zeros((len(atoms), 3))}
        if self.part is not None:
            self.results["energies"] = np.full(len(atoms), self.part)


@pytest.mark.parametrize(("part", "there"), [(0.5, True), (0.4, False), (None, False)])
def test_atomic_energies_that_do_not_add_up_are_none(part, there):
    calculator = Parts()
    calculator.part = part

    (labels,) = AseTeacher(calculator).predict([Atoms("Cu2", np.eye(3)[:2] * 3)])

    assert (labels.node_energy is not None) == there


def test_unknown_elements_are_named():
    with pytest.raises(
        TeacherError, match="teacher emt does not know Fe, Zn, which CuFeZn"
    ):
        load_teacher("emt").predict([Atoms("FeZnCu", np.eye(3) * 3)])


@pytest.mark.parametrize("spec", ["nonsense", "qdn:weights", "nequix", "student.txt"])
def test_a_spec_that_names_no_teacher_is_refused(spec):
    with pytest.raises(TeacherError, match="unknown teacher"):
        load_teacher(spec)


@pytest.mark.parametrize("spec", ["gone.pt", "eqv2:gone.pt", "nequix:gone.nqx"])
def test_missing_weights_are_refused(tmp_path, spec, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TeacherError, match="gone"):
        load_teacher(spec)


def test_teachers_see_atoms_inside_the_cell():
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    slab.rattle(0.1, seed=0)
    here, wandered = as_periodic(slab), slab.copy()
    wandered.positions += slab.cell.array[0] * np.arange(12)[:, None] * 100
    wandered.positions[:, 2] += 1e6

    there = as_periodic(wandered)

    assert np.abs(there.get_scaled_positions(wrap=False)).max() < 2
    np.testing.assert_allclose(
        there.get_all_distances(mic=True), here.get_all_distances(mic=True), atol=1e-9
    )
    assert np.ptp(there.positions[:, 2]) == pytest.approx(np.ptp(slab.positions[:, 2]))
