from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from benchmarks.adsorption_values import compute_values, lateral_shift, read_values
from benchmarks.dft_sets import Pair


class Counting(EMT):
    """EMT that knows how often it was asked, and may refuse an element."""

    def __init__(self, refuses: str = "") -> None:
        super().__init__()
        self.calls = 0
        self.refuses = refuses

    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        self.calls += 1
        if self.refuses and self.refuses in atoms.symbols:
            raise ValueError(f"no\n{self.refuses}")
        super().calculate(atoms, *args, **kwargs)


def pair(metal: str, site: str) -> Pair:
    clean: Atoms = fcc111(metal, (1, 1, 3), vacuum=8.0, periodic=True)
    clean.set_constraint(FixAtoms(range(2)))
    covered = clean.copy()
    add_adsorbate(covered, "O", 1.3, site)
    return Pair("test", metal, site, covered, clean, metal, -1.0)


PAIRS = [pair("Pt", "fcc"), pair("Pt", "hcp"), pair("Cu", "fcc")]


def compute(path: Path, calculator: EMT, **changes: Any) -> Any:
    settings = {"sha256": "emt", "max_steps": 0} | changes
    return compute_values(PAIRS, calculator, path=path, **settings)


def test_values_are_differences_of_energies(tmp_path: Path) -> None:
    values = compute(tmp_path / "values.csv", EMT())
    for one in PAIRS:
        covered, clean = one.covered.copy(), one.clean.copy()
        covered.calc = clean.calc = EMT()
        expected = covered.get_potential_energy() - clean.get_potential_energy()
        assert values[one.key].dE_eV == pytest.approx(expected, abs=1e-6)
    counts = [values[one.key].relaxations for one in PAIRS]
    assert counts == [2, 1, 2]  # one clean slab of platinum serves two sites
    assert read_values(tmp_path / "values.csv") == values


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "values.csv"
    first = compute(path, EMT())
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])  # killed while writing
    calculator = Counting()
    again = compute(path, calculator)
    assert calculator.calls == 2  # covered and clean slab of copper
    assert [v.dE_eV for v in again.values()] == [v.dE_eV for v in first.values()]
    assert set(read_values(path)) == set(first)


def test_another_model_or_limit_is_computed_anew(tmp_path: Path) -> None:
    path = tmp_path / "values.csv"
    compute(path, EMT())
    for change in ({"sha256": "other"}, {"max_steps": 1}):
        calculator = Counting()
        compute(path, calculator, **change)
        assert calculator.calls >= 5


def test_a_failure_is_a_row_and_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "values.csv"
    values = compute(path, Counting(refuses="Cu"))
    copper = values[PAIRS[2].key]
    assert (copper.status, copper.dE_eV) == ("failed", None)
    assert copper.error == "ValueError: no Cu"
    assert values[PAIRS[0].key].dE_eV is not None
    calculator = Counting()
    again = compute(path, calculator)
    assert again[PAIRS[2].key].status == "not_converged"  # no step was allowed
    assert calculator.calls == 2


def test_shift_is_along_the_surface_and_across_the_cell() -> None:
    before = Atoms("PtO", [[0, 0, 0], [0.2, 0, 2]], cell=[5, 5, 20], pbc=True)
    after = before.copy()
    after.positions[1] = [4.9, 0.4, 3.5]
    assert lateral_shift(before, after) == pytest.approx(0.5)
    assert lateral_shift(before[:1], after[:1]) == 0.0
