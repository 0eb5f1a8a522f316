"""No site that pymatgen's finder has on a flat surface is missing here."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import (
    bcc100,
    bcc110,
    bulk,
    fcc100,
    fcc111,
    hcp0001,
    surface,
)
from ase.spacegroup import crystal

from crack_md.workflows.surfaces.sites import find_sites, lateral_vectors
from crack_md.workflows.surfaces.slab import prepare_slab

pytest.importorskip("pymatgen.core.adsorption")
FARTHEST_A = 0.5


def ordered(indices: tuple[int, int, int]) -> Atoms:
    """Pt3Ni of the L1_2 structure."""
    lattice = crystal(
        ("Ni", "Pt"),
        basis=[(0, 0, 0), (0, 0.5, 0.5)],
        spacegroup=221,
        cellpar=[3.9, 3.9, 3.9, 90, 90, 90],
    )
    return surface(lattice, indices, 4, vacuum=8.0)


def layered() -> Atoms:
    """PtFe of the L1_0 structure, rows of Pt and Fe in (101)."""
    lattice = crystal(
        ("Pt", "Fe"),
        basis=[(0, 0, 0), (0.5, 0.5, 0.5)],
        spacegroup=123,
        cellpar=[2.72, 2.72, 3.7, 90, 90, 90],
    )
    return surface(lattice, (1, 0, 1), 4, vacuum=8.0)


def aluminide() -> Atoms:
    lattice = bulk("NiAl", "cesiumchloride", a=2.88)
    return surface(lattice, (1, 1, 0), 4, vacuum=8.0) * (2, 2, 1)


@pytest.mark.parametrize(
    "atoms",
    [
        fcc111("Pt", (2, 2, 4), vacuum=8.0),
        fcc100("Pt", (2, 2, 4), vacuum=8.0),
        bcc100("Fe", (2, 2, 4), vacuum=8.0),
        bcc110("Fe", (2, 2, 4), vacuum=8.0),
        hcp0001("Ru", (2, 2, 4), vacuum=8.0),
        ordered((1, 1, 1)),
        ordered((1, 0, 0)),
        ordered((1, 1, 0)),
        layered(),
        aluminide(),
    ],
    ids=lambda atoms: f"{atoms.symbols}",
)
def test_all_sites_of_pymatgen_are_found(atoms: Atoms) -> None:
    from pymatgen.core.adsorption import AdsorbateSiteFinder
    from pymatgen.core.surface import Slab as PymatgenSlab
    from pymatgen.io.ase import AseAtomsAdaptor

    slab = prepare_slab(atoms)
    ours = np.concatenate([site.members for site in find_sites(slab)])
    cell = AseAtomsAdaptor.get_structure(slab.atoms)
    theirs = PymatgenSlab(
        cell.lattice, cell.species, cell.frac_coords, (0, 0, 1), cell, 0, np.eye(3)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spglib's, about its own future
        found = AdsorbateSiteFinder(theirs, height=0.9).find_adsorption_sites()
    assert len(found["ontop"]) >= 1
    assert len(found["bridge"]) >= 1
    for kind in ("ontop", "bridge", "hollow"):
        for point in found[kind]:
            offsets = lateral_vectors(ours - point, slab.atoms)
            assert np.linalg.norm(offsets, axis=1).min() < FARTHEST_A, kind
