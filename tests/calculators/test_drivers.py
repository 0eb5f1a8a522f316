"""What drivers of other programs share, without those programs."""

import sys

import ase
import numpy as np
import pytest

from crack_md import CrackCalculator
from crack_md.calculators.drivers import HostedModel
from crack_md.calculators.lammps import open_lammps
from crack_md.errors import ConfigError, MissingDependencyError, StructureError
from tests.factories import oxygen_slab, tiny_model


def hosted() -> HostedModel:
    calculator = CrackCalculator(tiny_model(), dtype="float64")
    return HostedModel(calculator, ["Pt", "O"], host="LAMMPS")


def test_the_virial_is_minus_the_slope_of_the_energy_with_strain() -> None:
    atoms, model, step = oxygen_slab(), hosted(), 1e-5
    (answer,) = model.evaluate([atoms])
    for row, column in [(0, 0), (2, 2), (0, 1), (1, 2)]:
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[row, column] += sign * step / 2
            strain[column, row] += sign * step / 2  # twice on the diagonal
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(model.evaluate([strained])[0].energy)
        slope = (energies[0] - energies[1]) / (2 * step)
        assert answer.virial[row, column] == pytest.approx(-slope, abs=1e-6)


def test_places_hold_other_structures_and_more_of_them_later() -> None:
    model, one, other = hosted(), oxygen_slab(), oxygen_slab(seed=1)
    alone = [model.evaluate([atoms])[0] for atoms in (one, other)]
    both = model.evaluate([one, other])
    for expected, found in zip(alone, both, strict=True):
        assert found.energy == pytest.approx(expected.energy, abs=1e-10)
        np.testing.assert_allclose(found.forces, expected.forces, atol=1e-10)


def test_a_structure_that_cannot_be_answered_is_an_error() -> None:
    good, bad = oxygen_slab(), oxygen_slab()
    bad.positions[0] = np.nan
    with pytest.raises(StructureError):
        hosted().evaluate([good, bad])


def test_direct_forces_are_refused() -> None:
    calculator = CrackCalculator(tiny_model(forces="direct"))
    with pytest.raises(ConfigError, match=r"direct.*LAMMPS"):
        HostedModel(calculator, ["Pt"], host="LAMMPS")


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ([], "expected chemical symbols"),
        (["Pt", "Te"], "does not know Te; it was trained on H, O, Cu, Pd, Pt"),
    ],
)
def test_wrong_elements_are_refused(elements: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HostedModel(CrackCalculator(tiny_model()), elements, host="i-PI")


def test_atoms_without_a_cell_have_no_virial() -> None:
    molecule = ase.Atoms("OO", [[0, 0, 0], [0, 0, 1.2]])
    with pytest.raises(StructureError, match="no cell"):
        hosted().evaluate([molecule])


def test_lammps_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lammps", None)
    with pytest.raises(MissingDependencyError, match=r"crack-md\[lammps\]"):
        open_lammps()
