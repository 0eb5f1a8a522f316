import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule

from crack_md.workflows.surfaces.outcome import nearest_ratios, neighbor_distance


def test_ratio_of_a_dimer() -> None:
    """Covalent radii: Pt 1.36, O 0.66 Å."""
    pair = Atoms("PtO", [[0, 0, 0], [0, 0, 2.02]])
    assert nearest_ratios(pair) == pytest.approx([1.0, 1.0])
    distance, _ = neighbor_distance(pair)
    assert distance == pytest.approx(0.75)  # 0.75/1, more than 1/1.5


@pytest.mark.parametrize(
    ("apart", "expected", "words"),
    [
        (0.6 * 2.02, 0.75 / 0.6, "O|Pt.*a neighbor at 0.60 times"),
        (1.8 * 2.02, 1.8 / 1.5, "no neighbor nearer than 1.80 times"),
        (9.0, np.inf, "no neighbor within 3 times"),
    ],
)
def test_broken_dimers(apart: float, expected: float, words: str) -> None:
    distance, reason = neighbor_distance(
        Atoms("PtO", [[0, 0, 0], [0, 0, apart]], cell=[20, 20, 20])
    )
    assert distance == pytest.approx(expected)
    assert re.search(words, reason)


@pytest.mark.parametrize("metal", ["Cu", "Pt", "Au", "Ni", "Ag", "Al"])
def test_metal_slabs_are_inside(metal: str) -> None:
    assert neighbor_distance(fcc111(metal, (1, 1, 3), vacuum=8.0, periodic=True))[0] < 1


@pytest.mark.parametrize("name", ["N2", "CO", "H2", "O2", "H2O", "C2H2", "CH3OH"])
def test_molecules_are_inside(name: str) -> None:
    assert neighbor_distance(molecule(name))[0] < 1


def test_squeezed_peroxide_is_outside() -> None:
    """What a model that never saw O-O bonds may make of one: 0.96 instead of 1.4 Å."""
    squeezed = Atoms("O2", [[0, 0, 0], [0, 0, 0.96]])
    assert neighbor_distance(squeezed)[0] > 1


def test_one_atom_of_many_decides() -> None:
    slab = fcc111("Pt", (2, 2, 3), vacuum=10.0, periodic=True)
    slab += Atoms("O", [slab.positions[-1] + [0, 0, 3.2]])
    distance, reason = neighbor_distance(slab)
    assert distance == pytest.approx(3.2 / 2.02 / 1.5)
    assert reason.startswith("O (atom 12)")
