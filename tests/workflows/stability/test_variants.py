import numpy as np
import pytest
from ase.build import bcc110, fcc100, fcc111, hcp0001

from crack_md.workflows.stability.metals import relax_metal
from crack_md.workflows.stability.stability import (
    bond_length,
    neighbors,
    pure_variant,
    stacking,
    variants,
)
from crack_md.workflows.surfaces.slab import prepare_slab
from tests.workflows.stability.bonds import LENGTH_A, Bonds, platinum, sandwich


def test_neighbors_do_not_reach_through_the_vacuum() -> None:
    slab = fcc111("Pt", (3, 3, 4), a=4.0, vacuum=1.3, periodic=True)
    counts = neighbors(slab).sum(axis=1)
    assert sorted(set(counts)) == [9, 12]
    assert bond_length(slab) == pytest.approx(4.0 / 2**0.5)


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (fcc111("Pt", (2, 2, 4), vacuum=8.0), "fcc"),
        (fcc100("Pt", (2, 2, 4), vacuum=8.0), "fcc"),
        (hcp0001("Ru", (2, 2, 4), vacuum=8.0), "hcp"),
        (bcc110("Fe", (2, 2, 5), vacuum=8.0), None),
        (fcc111("Pt", (2, 2, 2), vacuum=8.0), None),
    ],
)
def test_stacking(atoms: object, expected: str | None) -> None:
    """Two layers have no inner atom; neighbors of bcc are eight."""
    assert stacking(atoms) == expected


def test_sandwich_swaps_nickel_up_and_loses_platinum() -> None:
    """All pairs of the two layers are alike, and all atoms of the surface."""
    slab = prepare_slab(sandwich())
    swap, vacancy = sorted(variants(slab), key=lambda v: v.kind)
    assert (swap.kind, swap.element) == ("swap", "Ni")
    assert [str(s) for s in swap.slab.atoms.symbols[12:]].count("Ni") == 1
    assert [str(s) for s in swap.slab.atoms.symbols[8:12]].count("Pt") == 1
    assert np.array_equal(swap.slab.atoms.positions, slab.atoms.positions)
    assert (vacancy.kind, vacancy.element) == ("vacancy", "Pt")
    assert len(vacancy.slab.atoms) == 15
    assert vacancy.slab.surface.tolist() == [12, 13, 14]
    assert len(vacancy.slab.layer) == 15


def test_held_atoms_are_left_where_they_are() -> None:
    """Of two layers the lower one is fixed: nothing can be swapped."""
    atoms = fcc111("Pt", (2, 2, 2), vacuum=8.0)
    atoms.numbers[:4] = 28
    found = list(variants(prepare_slab(atoms)))
    assert [v.kind for v in found] == ["vacancy"]


def test_pure_slab_has_the_lattice_of_its_metal() -> None:
    slab = prepare_slab(fcc111("Pt", (2, 2, 4), a=1.05 * LENGTH_A * 2**0.5, vacuum=8.0))
    pure = pure_variant(slab, relax_metal("Pt", Bonds())).slab.atoms
    assert bond_length(pure) == pytest.approx(LENGTH_A, abs=1e-3)
    assert set(pure.symbols) == {"Pt"}
    assert len(platinum()) == len(pure)
