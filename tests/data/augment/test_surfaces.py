"""Slabs and bulk cells: atoms, layers and distances that can be worked out by hand."""

import numpy as np
import pytest
from ase.build import fcc111
from ase.neighborlist import neighbor_list

from crack_md.data.augment.crystals import (
    SIZES,
    build_bulk,
    build_surface,
    layer_of,
    surface_layer_of,
)

A = 4.0
NEIGHBOR = A / np.sqrt(2)
MULTIPLICITY = {"1x1": 1, "2x1": 2, "root2": 2, "root3": 3, "2x2": 4}
CELLS = [(family, cell) for family in SIZES for cell in SIZES[family]]
AREA = {
    "fcc111": A**2 * np.sqrt(3) / 4,
    "fcc100": A**2 / 2,
    "fcc110": A**2 / np.sqrt(2),
    "fcc211": A**2 * np.sqrt(3 / 2),
    "hcp0001": A**2 * np.sqrt(3) / 4,
}
"""Å², one surface cell: on (hkl) a³/4 over the spacing of its planes."""


def built(family, cell, layers=3):
    return build_surface(family, cell, layers, lattice_constant=A, vacuum=12.0)


@pytest.mark.parametrize(("family", "cell"), CELLS)
def test_cells_hold_as_many_atoms_and_as_much_surface_as_their_name_says(family, cell):
    slab = built(family, cell)

    rows = {"fcc110": 5, "fcc211": 9}.get(family, 3)
    area = np.linalg.norm(np.cross(slab.cell[0], slab.cell[1]))
    assert len(slab) == rows * MULTIPLICITY[cell]
    # ase.build's root cells are off by 0.3 %
    assert area == pytest.approx(AREA[family] * MULTIPLICITY[cell], rel=7e-3)
    assert slab.pbc.all()
    assert slab.cell[2, 2] - np.ptp(slab.positions[:, 2]) == pytest.approx(12.0)


@pytest.mark.parametrize(("family", "cell"), CELLS)
def test_coordination_is_that_of_the_surface(family, cell):
    slab = built(family, cell)

    receivers, distances = neighbor_list("id", slab, 1.2 * NEIGHBOR)
    fewest = {"fcc111": 9, "fcc100": 8, "fcc110": 7, "fcc211": 7, "hcp0001": 9}
    coordination = np.bincount(receivers)
    assert coordination.min() == fewest[family]
    assert coordination.max() == 12
    assert distances.min() == pytest.approx(NEIGHBOR, rel=3e-3)


@pytest.mark.parametrize("lattice", ["fcc", "hcp", "bcc"])
@pytest.mark.parametrize("seed", range(5))
def test_bulks_are_dense(lattice, seed):
    cell = build_bulk(lattice, A, most_atoms=8, random=np.random.default_rng(seed))

    neighbors = {"fcc": (12, NEIGHBOR), "hcp": (12, NEIGHBOR)}
    # the same volume of an atom: a_bcc = a / 2^(1/3), eight neighbors at √3/2 of it
    neighbors["bcc"] = (8, A / 2 ** (1 / 3) * np.sqrt(3) / 2)
    count, distance = neighbors[lattice]
    receivers, found = neighbor_list("id", cell, 1.05 * distance)
    assert 2 <= len(cell) <= 8
    assert cell.get_volume() / len(cell) == pytest.approx(A**3 / 4)
    assert set(np.bincount(receivers)) == {count}
    np.testing.assert_allclose(found, distance)


def test_layers_count_from_the_top():
    slab = fcc111("Pt", (2, 1, 3), vacuum=6.0)

    assert layer_of(slab).tolist() == [2, 2, 1, 1, 0, 0]


def test_the_surface_of_a_step_is_its_terrace():
    layer = surface_layer_of(built("fcc211", "1x1"), "fcc211")

    assert np.bincount(layer).tolist() == [3, 3, 3]
