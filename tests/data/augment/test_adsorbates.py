"""O, OH and H on slabs: heights and sites that can be worked out by hand."""

import numpy as np
import pytest
from ase.build import fcc100, fcc111

from crack_md.data.augment.crystals import (
    CONTACT,
    add_adsorbates,
    drop_height,
    site_above,
)

A = 4.0
NEIGHBOR = A / np.sqrt(2)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


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


def test_hydrogen_alone_sits_nearer_than_oxygen():
    slab = fcc111("Pt", (2, 2, 3), a=3.97, vacuum=6.0)
    slab.pbc = True
    nearest = {
        name: np.mean(
            [
                covered.get_distances(12, range(12), mic=True).min()
                for seed in range(40)
                if (covered := add_adsorbates(slab, [name], random=generator(seed)))
                and covered.symbols[12] == name
            ]
        )
        for name in ("O", "H")
    }

    # the same draws, contact 0.22 Å shorter
    assert nearest["O"] - nearest["H"] == pytest.approx(0.22, abs=0.03)
