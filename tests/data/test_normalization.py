"""Element references and scales have exact answers on made-up energies."""

import numpy as np
import pytest
from ase import Atoms

from crack_md.data.dataset import LabelledStructure
from crack_md.data.statistics import fit_element_references, fit_energy_scale

REFERENCES = {1: -1.0, 8: -2.5, 78: -6.0}


def structure(formula: str, *, shift: float = 0.0) -> LabelledStructure:
    atoms = Atoms(formula)
    energy = sum(REFERENCES[z] for z in atoms.numbers) + shift
    forces = np.zeros((len(atoms), 3))
    forces[:, 0] = 3.0
    return LabelledStructure(
        atoms, energy, forces, None, "g", "made", np.ones(len(atoms), bool)
    )


def test_references_that_explain_the_energies_are_found_exactly():
    structures = [structure(f) for f in ("Pt4", "Pt4O", "Pt4OH", "Pt8O2", "H2O")]

    assert fit_element_references(structures) == pytest.approx(REFERENCES)


def test_total_energies_get_references_and_no_constant():
    scale = fit_energy_scale(
        [structure(f) for f in ("Pt4", "Pt4O", "Pt4OH", "H2O")], average_atoms=10.0
    )

    assert scale.element_references == pytest.approx(REFERENCES)
    assert scale.mean == 0.0
    assert scale.force_std == pytest.approx(np.sqrt(3.0))  # one component of three
    assert scale.std == pytest.approx(10 * np.sqrt(3.0))


def test_adsorption_energies_get_mean_and_spread():
    structures = [structure("Pt", shift=7.0), structure("Pt", shift=5.0)]

    scale = fit_energy_scale(structures, energy_reference="adsorption")

    assert (scale.mean, scale.std) == (0.0, 1.0)
    assert scale.element_references == {}


def test_elements_in_fixed_proportion_still_have_finite_references():
    found = fit_element_references([structure("H2O"), structure("H2O")])

    # 2 E(H) + E(O) = -4.5 has many answers; the smallest is along (2, 1)
    assert found == pytest.approx({1: -1.8, 8: -0.9})
