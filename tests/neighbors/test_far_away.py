"""The same answer wherever a structure lies, and however far its atoms wandered."""

import subprocess
import sys

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk

from crack_md.calculators import CrackCalculator
from crack_md.errors import StructureError
from crack_md.graph import edge_vectors
from crack_md.models.force_field import EnergyScale
from crack_md.neighbors import (
    NeighborRule,
    NeighborSkin,
    SmoothNeighbors,
    StrictNeighbors,
    build_graph,
    candidates,
)
from tests.factories import oxygen_slab, tiny_model, water

RULES = [StrictNeighbors(20), SmoothNeighbors(5.0)]
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
"""eV and eV/Å."""


def moved_by_cells(atoms: ase.Atoms) -> ase.Atoms:
    """Every atom by lattice vectors of its own, up to 400 of them."""
    moved = atoms.copy()
    hops = np.random.default_rng(0).integers(-400, 400, (len(atoms), 3))
    moved.positions += hops @ atoms.cell.array
    return moved


def moved_by(atoms: ase.Atoms, distance: float) -> ase.Atoms:
    moved = atoms.copy()
    moved.positions += np.array([1.0, -1.0, 0.5]) * distance
    return moved


def binary(atoms: ase.Atoms) -> ase.Atoms:
    """The structure on multiples of 2⁻²⁰ Å, whose sums with 10⁶ Å are exact."""
    rounded = atoms.copy()
    rounded.set_cell(np.round(atoms.cell.array * 2**20) / 2**20)
    rounded.positions = np.round(atoms.positions * 2**20) / 2**20
    return rounded


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("skin", [0.0, 1.0])
def test_a_moved_structure_has_the_same_forces(dtype: str, skin: float) -> None:
    # forces of several eV/Å, as real ones
    model = tiny_model(dtype=getattr(torch, dtype), scale=EnergyScale(std=100.0))
    calculator = CrackCalculator(model, device="cpu", dtype=dtype, skin=skin)  # type: ignore[arg-type]
    slab = binary(oxygen_slab())
    twins = [moved_by_cells(slab), moved_by(slab, 500.0), moved_by(slab, 1e6)]
    for atoms, others in ((slab, twins), (binary(water()), [moved_by(water(), 1e6)])):
        others = [binary(other) for other in others]
        here, *there = calculator.calculate_many([atoms, *others])
        assert not isinstance(here, Exception)
        assert np.abs(here["forces"]).max() > 0.3
        for other in there:
            assert not isinstance(other, Exception)
            for name in ("energy", "forces"):
                np.testing.assert_allclose(
                    other[name], here[name], rtol=0, atol=TOLERANCE[dtype]
                )


@pytest.mark.parametrize("rule", RULES)
def test_edges_of_a_float32_graph_are_rounded_once(rule: NeighborRule) -> None:
    far = moved_by(oxygen_slab(), 9e5)
    single, double = (
        edge_vectors(build_graph(far, rule, dtype=dtype))
        for dtype in (torch.float32, torch.float64)
    )
    assert torch.equal(single, double.float())
    skin = NeighborSkin(rule, 0.5, dtype=torch.float32)
    assert torch.equal(edge_vectors(skin(far)), single)


def test_keys_that_fit_no_integer_are_ordered_column_by_column(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crystal = bulk("Cu", cubic=True) * (2, 1, 1)
    crystal.rattle(0.05, seed=1)
    wandered = moved_by_cells(crystal)
    expected = build_graph(wandered, RULES[1])
    monkeypatch.setattr(candidates, "LARGEST_KEY", 1)
    found = NeighborSkin(RULES[1], 0.5)(wandered)
    assert torch.equal(found.cell_shift, expected.cell_shift)
    assert torch.equal(found.neighbors, expected.neighbors)


SEARCH = """
import numpy as np
from ase import Atoms
from crack_md.neighbors import all_pairs
for *side, open_side in [(2e3, 2e3, 4, 1), (9e3, 9e3, 0, 1), (9e3, 9e3, 4, 0)]:
    pbc = (True, True, not open_side)
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]], cell=np.diag(side), pbc=pbc)
    print(len(all_pairs(atoms, 5.0).receiver))
"""


def test_wide_thin_cells_do_not_end_the_process() -> None:
    done = subprocess.run(  # a division by zero in vesin ends the process it is in
        [sys.executable, "-c", SEARCH], capture_output=True, text=True, check=False
    )
    # two atoms; with images at 4 Å each, 2.5 and 1.5 Å from the other
    assert (done.returncode, done.stdout.split()) == (0, ["2", "2", "8"]), done.stderr


@pytest.mark.parametrize("length", [1.1e4, 1e6, 1e12])
def test_cells_that_no_structure_has_are_refused(length: float) -> None:
    atoms = ase.Atoms("Cu", cell=[4.0, 4.0, length], pbc=True)
    for build in (lambda one: build_graph(one, RULES[0]), NeighborSkin(RULES[0], 0.5)):
        with pytest.raises(StructureError, match="expected at most 1e\\+04 Å"):
            build(atoms)
    atoms.pbc = (True, True, False)
    assert build_graph(atoms, RULES[0]).mask.any()


def test_atoms_too_many_cells_away_are_refused() -> None:
    atoms = ase.Atoms("Cu", [[9e6, 0, 0]], cell=[0.5, 4.0, 4.0], pbc=True)
    with pytest.raises(StructureError, match="wrap the structure"):
        build_graph(atoms, SmoothNeighbors(3.0))
