"""Where an adsorbate ended up: on which site, how high, bonded to what."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from crack_md.workflows.surfaces.contact_surface import CONTACT_SCALE, Points
from crack_md.workflows.surfaces.placement import Start
from crack_md.workflows.surfaces.site_labels import formula
from crack_md.workflows.surfaces.sites import Site, lateral_vectors
from crack_md.workflows.surfaces.slab import Slab

TIE_A = 1e-3
"""Near a tie the starting site keeps its name."""


@dataclass(frozen=True)
class Landing:
    """The place of the binding atom after a relaxation."""

    site: str | None
    """Label of the nearest site of the starting surface."""
    migrated: bool
    """Whether that is another site than it started from."""
    height: float
    """Å above the mean height of the nearest site's contacts."""
    coordination: int
    """Slab atoms within 1.15 times the sum of covalent radii."""
    elements: str
    """Elements of these atoms: ``Pt2Ru``."""


def landing(
    atoms: Atoms, *, slab: Slab, start: Start, sites: tuple[Site, ...]
) -> Landing:
    """Return where the binding atom of a relaxed structure is.

    Args:
        atoms: the relaxed structure, its adsorbate last.
        slab: the prepared slab.
        start: where the relaxation began; a random place has no name to keep.
        sites: all symmetry-distinct sites.
    """
    n_slab = len(slab.atoms)
    binding = atoms.positions[n_slab]
    distances = [_lateral_distance(binding, site, slab) for site in sites]
    nearest = sites[int(np.argmin(distances))]
    if start.seed is None:
        own = _lateral_distance(binding, start.site, slab)
        nearest = start.site if own < min(distances) + TIE_A else nearest
    touched = _bonded(atoms, n_slab)
    height = binding[2] - atoms.positions[list(nearest.contacts), 2].mean()
    return Landing(
        site=nearest.label,
        migrated=start.seed is None and nearest is not start.site,
        height=float(height),
        coordination=len(touched),
        elements=formula(touched),
    )


def _lateral_distance(point: Points, site: Site, slab: Slab) -> float:
    """Return how far in Å a point is sideways from the nearest member of a site."""
    offsets = lateral_vectors(site.members - point, slab.atoms)
    return float(np.linalg.norm(offsets, axis=1).min())


def _bonded(atoms: Atoms, n_slab: int) -> list[str]:
    """Return the elements of the slab atoms in touch, an image counting as an atom."""
    reach = CONTACT_SCALE * covalent_radii[atoms.numbers]
    first, second = neighbor_list("ij", atoms, reach)
    touched = second[(first == n_slab) & (second < n_slab)]
    return [str(atoms.symbols[index]) for index in touched]
