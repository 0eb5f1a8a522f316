import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from crack_md.data.statistics import label_spreads
from crack_md.errors import DataError

CU, PD, PT = 29, 46, 78
NOBLE, ALL = frozenset({CU, PT}), frozenset({CU, PD, PT})


def frame(
    symbol: str, spread: float | None, *, n: int = 1, force: float = 0.0
) -> Atoms:
    atoms = fcc111("Pt", (2, 2, 2), a=4.0, vacuum=6.0, periodic=True)
    atoms.symbols[0] = symbol
    for offset in range(n):
        add_adsorbate(atoms, molecule("OH"), 2.0, "ontop", offset=(offset, 0))
    if spread is not None:
        atoms.info["teacher_spread"] = spread
    forces = np.zeros((len(atoms), 3))
    forces[0, 1] = force
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
    return atoms


def test_spread_is_the_root_mean_square_per_adsorbate():
    frames = [
        frame("Pt", 0.3),
        frame("Cu", 0.8, n=2),  # 0.4 for each
        frame("Pd", 0.6),
        frame("Pd", 9.0, force=3.0),  # far from rest
        frame("Pt", None),
        frame("Ni", 7.0),  # in no set
        frame("Pt", 5.0, n=0),  # clean
    ]
    found = {
        each.metals: each.spread_eV for each in label_spreads(frames, [ALL, NOBLE])
    }
    assert found[NOBLE] == pytest.approx(((0.3**2 + 0.4**2) / 2) ** 0.5)
    assert found[ALL] == pytest.approx(0.6)


def test_a_set_without_frames_is_named():
    with pytest.raises(DataError, match="metals CuPdPt"):
        label_spreads([frame("Pt", 0.3)], [NOBLE, ALL])
