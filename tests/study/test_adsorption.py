"""Adsorption energies of students beside those of the source of their labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111

from crack_md import screen
from crack_md.calculators import CrackCalculator
from crack_md.errors import DataError
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import ForceField
from crack_md.study.adsorption import adsorption_errors


def slabs() -> list[Atoms]:
    found = []
    for metal, a in (("Pt", 3.97), ("Pd", 3.95)):
        slab = fcc111(metal, (2, 2, 3), a=a, vacuum=7.0, periodic=True)
        slab.info["name"] = metal
        found.append(slab)
    return found


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("screened")
    screen(slabs(), CrackCalculator(), adsorbates=["O"], out=out, max_sites=2)
    return out


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("student") / "student.pt"
    save_model(load_model("default"), path)
    return path


def test_the_model_that_screened_has_no_error(screened: Path, student: Path) -> None:
    found = adsorption_errors(student, screened)
    assert found["n_slabs"] == 2
    assert found["n_without_energy"] == 0
    assert found["mae_eV"] == pytest.approx(0, abs=1e-3)
    assert found["mean_error_eV"] == pytest.approx(0, abs=1e-3)


def test_a_model_that_raises_oxygen_is_off_by_as_much(
    screened: Path, student: Path, tmp_path: Path
) -> None:
    model = load_model(student)
    references = dict(model.scale.element_references)
    raised = replace(
        model.scale, element_references={**references, 8: references[8] + 0.25}
    )
    save_model(
        ForceField(model.network, raised, model.metadata), tmp_path / "raised.pt"
    )
    found = adsorption_errors(tmp_path / "raised.pt", screened)
    np.testing.assert_allclose(found["mae_eV"], 0.25, atol=1e-3)
    np.testing.assert_allclose(found["mean_error_eV"], 0.25, atol=1e-3)


def test_a_folder_without_a_screening_is_refused(student: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no finished screening"):
        adsorption_errors(student, tmp_path)
