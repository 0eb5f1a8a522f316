import numpy as np
import pytest
from ase.build import fcc111, fcc211

from crack_md.workflows.surfaces.sites import find_sites, random_sites, some_sites
from crack_md.workflows.surfaces.slab import Slab, prepare_slab
from crack_md.workflows.surfaces.surface_atoms import CONTACT_SCALE

BOND = 1.36 + 0.66  # covalent radii of Pt and O


@pytest.fixture(scope="module")
def slab() -> Slab:
    return prepare_slab(fcc111("Pt", (2, 2, 4), vacuum=8.0))


def test_seed_and_number_decide(slab: Slab) -> None:
    few = random_sites(slab, count=3, seed=1)
    many = random_sites(slab, count=8, seed=1)
    other = random_sites(slab, count=3, seed=2)
    assert [site.label for site in many] == [f"random-{n}" for n in range(1, 9)]
    for a, b, c in zip(few, many, other, strict=False):
        assert np.array_equal(a.position, b.position)
        assert not np.allclose(a.position, c.position)


@pytest.mark.parametrize("build", [fcc111, fcc211])
def test_places_fill_the_cell_and_touch_the_surface(build) -> None:  # type: ignore[no-untyped-def]
    size = (3, 2, 4)
    slab = prepare_slab(build("Pt", size, vacuum=8.0))
    sites = random_sites(slab, count=60, seed=0)
    places = np.array([site.position for site in sites])
    scaled = np.linalg.solve(slab.atoms.cell.array.T, places.T).T[:, :2]
    assert ((scaled >= 0) & (scaled < 1)).all()
    for quarter in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert ((scaled >= 0.5) == quarter).all(axis=1).sum() > 4
    for site in sites:
        distances = np.linalg.norm(_images(slab) - site.position, axis=1)
        # at bonding distance where the ball touches one atom, never inside an atom
        assert BOND - 1e-6 < distances.min() < CONTACT_SCALE * BOND + 1e-6


def _images(slab: Slab) -> np.ndarray:
    shifts = [[i, j, 0] for i in range(-2, 3) for j in range(-2, 3)]
    moved = slab.atoms.positions[None] + (np.array(shifts) @ slab.atoms.cell)[:, None]
    return moved.reshape(-1, 3)


def test_limit_keeps_the_order(slab: Slab) -> None:
    sites = find_sites(slab)
    assert some_sites(sites, limit=None, seed=0) == sites
    assert some_sites(sites, limit=9, seed=0) == sites
    two = some_sites(sites, limit=2, seed=0)
    assert len(two) == 2
    assert [site for site in sites if site in two] == list(two)
    assert two == some_sites(sites, limit=2, seed=0)
