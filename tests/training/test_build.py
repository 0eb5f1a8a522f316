"""From configuration to objects: which frames, which units."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from crack_md.data.dataset import LabelledStructure
from crack_md.data.normalization import fit_element_references, fit_energy_scale
from crack_md.errors import CheckpointError
from crack_md.training.build import energy_spread, read_head
from crack_md.training.source import without
from tests.training.factories import labelled


def frame(formula: str, energy: float = 0.0) -> LabelledStructure:
    atoms = Atoms(formula)
    n = len(atoms)
    return dataclasses.replace(
        labelled(0),
        atoms=atoms,
        energy=energy,
        forces=np.full((n, 3), 2.0),
        free=np.ones(n, dtype=bool),
    )


def test_combinations_leave_frames_out() -> None:
    frames = [frame(formula) for formula in ("Ni2", "NiO", "PtO", "NiPt", "NiPtO")]

    def kept(*entries: str) -> list[str]:
        return [str(one.atoms.symbols) for one in without(frames, entries)]

    assert kept() == ["Ni2", "NiO", "PtO", "NiPt", "NiPtO"]
    assert kept("Ni") == ["PtO"]
    assert kept("Ni-O") == ["Ni2", "PtO", "NiPt"]
    assert kept("Ni-O", "Pt") == ["Ni2"]


def test_references_solve_the_exact_case() -> None:
    frames = [frame("Ni2", -8.0), frame("NiO", -6.5), frame("O2", -5.0)]
    found = fit_element_references(frames)
    assert found[28] == pytest.approx(-4.0)
    assert found[8] == pytest.approx(-2.5)


def test_total_energies_get_references_and_a_unit_of_force() -> None:
    scale = fit_energy_scale([frame("Ni2", -8.0)], average_atoms=3.0)
    assert (scale.mean, scale.force_std) == (0.0, 2.0)
    assert scale.std == pytest.approx(6.0)
    assert scale.element_references[28] == pytest.approx(-4.0)


def test_adsorption_energies_get_mean_and_spread() -> None:
    frames = [frame("NiO", 1.0), frame("NiO", 3.0)]
    scale = fit_energy_scale(frames, energy_reference="adsorption")
    assert (scale.mean, scale.std) == (2.0, 1.0)
    assert not scale.element_references


def test_energy_spread_is_without_references() -> None:
    frames = [frame("Ni2", -8.0 + shift) for shift in (-1.0, 1.0)]
    scale = fit_energy_scale(frames)
    assert energy_spread(frames, scale, per_atom=False) == pytest.approx(1.0)
    assert energy_spread(frames, scale, per_atom=True) == pytest.approx(0.5)
    assert energy_spread(frames[:1], scale, per_atom=True) == 1.0


def test_head_that_is_none(tmp_path: Path) -> None:
    assert read_head(None, beside=tmp_path / "student.pt") is None
    path = tmp_path / "feature_head.pt"
    path.write_text("no tensor")
    with pytest.raises(CheckpointError, match=r"feature_head\.pt: no feature head"):
        read_head(path)
