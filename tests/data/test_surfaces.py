"""Geometry of generated slabs: distances that can be worked out by hand."""

import numpy as np
import pytest
from ase.build import fcc100, fcc111

from crack_md.data.surfaces import (
    CONTACT,
    add_adsorbates,
    build_bulk,
    build_surface,
    decorate,
    drop_height,
    layer_of,
    site_above,
)

A = 4.0
NEIGHBOR = A / np.sqrt(2)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("family", ["fcc111", "fcc100", "fcc211", "hcp0001"])
@pytest.mark.parametrize("seed", range(6))
def test_slabs_are_small_periodic_and_keep_the_bulk_distance(family, seed):
    slab = build_surface(family, A, vacuum=12.0, random=generator(seed))

    distances = slab.get_all_distances(mic=True)
    assert 6 <= len(slab) <= 20
    assert slab.pbc.all()
    assert slab.cell[2, 2] - np.ptp(slab.positions[:, 2]) == pytest.approx(12.0)
    # ase.build's root cells are off by 0.3 %
    assert np.min(distances[distances > 0]) == pytest.approx(NEIGHBOR, rel=3e-3)


@pytest.mark.parametrize("seed", range(6))
def test_bulks_are_dense(seed):
    cell = build_bulk(A, random=generator(seed))

    assert 2 <= len(cell) <= 16
    assert cell.get_volume() / len(cell) == pytest.approx(A**3 / 4)


def test_cells_of_different_shape_are_drawn():
    sizes = {
        len(build_surface("fcc111", A, vacuum=12.0, random=generator(seed)))
        for seed in range(20)
    }
    assert len(sizes) >= 4


def test_layers_count_from_the_top():
    slab = fcc111("Pt", (2, 1, 3), vacuum=6.0)

    assert layer_of(slab).tolist() == [2, 2, 1, 1, 0, 0]


@pytest.mark.parametrize("order", ["random", "ordered"])
@pytest.mark.parametrize("seed", range(10))
def test_every_element_of_an_alloy_occurs(order, seed):
    slab = fcc111("Cu", (2, 2, 4), vacuum=6.0)

    alloy = decorate(slab, ("Pt", "Ni"), order=order, random=generator(seed))

    assert set(alloy.symbols) == {"Pt", "Ni"}
    np.testing.assert_array_equal(alloy.positions, slab.positions)


def test_skins_occur():
    slab = fcc111("Cu", (2, 2, 4), vacuum=6.0)
    alloys = [
        decorate(slab, ("Pt", "Ni"), order="ordered", random=generator(seed))
        for seed in range(30)
    ]

    skins = [a for a in alloys if set(a.symbols[layer_of(a) == 0]) == {"Pt"}]
    assert len(skins) >= 5


def test_a_ball_rests_where_geometry_says():
    slab = fcc111("Pt", (2, 2, 3), a=A, vacuum=6.0)
    slab.pbc = True
    top = slab.positions[:, 2].max()
    corner = slab.positions[slab.positions[:, 2].argmax()]
    hollow = corner[:2] + np.array([0.0, NEIGHBOR / np.sqrt(3)])

    assert drop_height(slab, corner[:2], 2.0) == pytest.approx(top + 2.0)
    # three atoms at distance d/√3 from the axis of the hollow
    expected = top + np.sqrt(2.0**2 - NEIGHBOR**2 / 3)
    assert drop_height(slab, hollow, 2.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("slab", "kind", "across"),
    [
        (fcc111("Pt", (2, 2, 3), a=A, vacuum=6.0), "ontop", 0.0),
        (fcc111("Pt", (2, 2, 3), a=A, vacuum=6.0), "bridge", NEIGHBOR / 2),
        (fcc111("Pt", (2, 2, 3), a=A, vacuum=6.0), "hollow", NEIGHBOR / np.sqrt(3)),
        (fcc100("Pt", (2, 2, 3), a=A, vacuum=6.0), "hollow", NEIGHBOR / np.sqrt(2)),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_sites_lie_where_their_name_says(slab, kind, across, seed):
    slab = slab.copy()
    slab.pbc = True
    lateral = site_above(slab, kind, random=generator(seed))

    slab.append("O")
    slab.positions[-1] = [*lateral, slab.positions[:-1, 2].max()]
    top = [atom.index for atom in slab if atom.tag == 1]
    nearest = slab.get_distances(-1, top, mic=True).min()

    assert nearest == pytest.approx(across, abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_adsorbates_touch_the_surface_and_nothing_overlaps(seed):
    slab = fcc111("Pt", (2, 2, 4), a=3.97, vacuum=6.0)
    slab.pbc = True

    covered = add_adsorbates(slab, ["OH"], random=generator(seed))

    oxygen, hydrogen = 16, 17
    assert covered.get_chemical_formula() == "HOPt16"
    assert covered.get_distance(oxygen, hydrogen) == pytest.approx(0.98, abs=0.1)
    to_metal = covered.get_distances(oxygen, range(16), mic=True).min()
    assert min(CONTACT.values()) - 0.4 < to_metal < 3.6
    assert covered.positions[hydrogen, 2] > covered.positions[oxygen, 2] - 0.1


def test_a_full_cell_refuses_more_adsorbates():
    slab = fcc111("Pt", (1, 1, 4), a=3.97, vacuum=6.0)
    slab.pbc = True

    assert add_adsorbates(slab, ["O"] * 6, random=generator()) is None
