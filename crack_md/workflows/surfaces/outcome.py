"""What became of an adsorbate: its final site, anomalies as OC20 defines them, domain.

Two atoms are bonded where they are nearer than ``scale`` times the sum of their
covalent radii (ASE's natural cutoffs) plus 0.6 Å: the public code of OC20 builds its
neighbor lists with ASE's default skin, 0.3 Å per atom, which counts.

    desorbed         no atom of the adsorbate (of several, of one of them) is bonded to
                     the slab at scale 1.5
    dissociated      the bonds inside the adsorbate at scale 1 are not those it had
    intercalated     an atom of the adsorbate is bonded at scale 1 to a subsurface atom
                     (tag 0)
    surface_changed  two slab atoms are bonded at scale 1 that are not bonded at scale
                     1.5 in the relaxed clean slab, or the other way round
    out_of_domain    the structure is not one that the model can know

Each of them takes a site out of the ranking; `site_migrated` and `not_converged` are
noted beside them. A domain distance is any function from a structure to a number in
units of a limit, and a sentence that says why. Models that were saved with statistics
of their training features have one of their own; for all others distances between
neighbors decide, which finds what is broken but not what is merely unusual.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import natural_cutoffs, neighbor_list
from numpy.typing import NDArray

from crack_md.workflows.surfaces.adsorbates import Placement
from crack_md.workflows.surfaces.sites import Site, formula, lateral_vectors
from crack_md.workflows.surfaces.slab import Slab
from crack_md.workflows.surfaces.surface_atoms import CONTACT_SCALE, Points

TIE_A = 1e-3
"""Near a tie the starting site keeps its name."""


@dataclass(frozen=True)
class FinalSite:
    """The place of the binding atom after a relaxation; of several, all places."""

    site: str | None
    """Label of the nearest site of the starting surface."""
    migrated: bool
    """Whether that is another site than it started from, for any of several."""
    height: float
    """Å above the mean height of the nearest site's contacts; the highest."""
    coordination: int
    """Slab atoms within 1.15 times the sum of covalent radii; the fewest."""
    elements: str
    """Elements of these atoms: ``Pt2Ru``."""


def find_final_site(
    atoms: Atoms, *, slab: Slab, start: Placement, sites: tuple[Site, ...]
) -> FinalSite:
    """Return where the binding atom of a relaxed structure is.

    Args:
        atoms: the relaxed structure, its adsorbate last.
        slab: the prepared slab.
        start: where the relaxation began; a random place has no name to keep.
        sites: all symmetry-distinct sites.
    """
    n_slab, size = len(slab.atoms), len(start.adsorbate.atoms)
    ends = [
        _final_site(
            atoms,
            n_slab + place * size,
            slab=slab,
            start=replace(start, site=site, others=()),
            sites=sites,
        )
        for place, site in enumerate(start.sites)
    ]
    return FinalSite(
        site=" + ".join(str(end.site) for end in ends),
        migrated=any(end.migrated for end in ends),
        height=max(end.height for end in ends),
        coordination=min(end.coordination for end in ends),
        elements=" + ".join(end.elements for end in ends),
    )


def _final_site(
    atoms: Atoms, index: int, *, slab: Slab, start: Placement, sites: tuple[Site, ...]
) -> FinalSite:
    """Return where one atom that binds is."""
    binding = atoms.positions[index]
    distances = [_lateral_distance(binding, site, slab) for site in sites]
    nearest = sites[int(np.argmin(distances))]
    if start.seed is None:
        own = _lateral_distance(binding, start.site, slab)
        nearest = start.site if own < min(distances) + TIE_A else nearest
    touched = _bonded(atoms, index, len(slab.atoms))
    height = binding[2] - atoms.positions[list(nearest.contacts), 2].mean()
    return FinalSite(
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


def _bonded(atoms: Atoms, index: int, n_slab: int) -> list[str]:
    """Return the elements of the slab atoms in touch, an image counting as an atom."""
    reach = CONTACT_SCALE * covalent_radii[atoms.numbers]
    first, second = neighbor_list("ij", _open_above(atoms), reach)
    touched = second[(first == index) & (second < n_slab)]
    return [str(atoms.symbols[index]) for index in touched]


CUSHION = 1.5
SKIN_A = 0.3
DISQUALIFYING = (
    "desorbed",
    "dissociated",
    "intercalated",
    "surface_changed",
    "out_of_domain",
)
"""In the order in which they become the status of a site."""


def adsorbate_anomalies(
    final: Atoms, *, initial: Atoms, clean: Atoms, count: int = 1
) -> tuple[str, ...]:
    """Return what went wrong, worst first.

    Args:
        final: the relaxed structure, its adsorbate last and tagged 2.
        initial: where the relaxation started, its atoms in the same order.
        clean: the relaxed slab without adsorbate; as given where the model cannot
            relax it.
        count: adsorbates, of equally many atoms.
    """
    n_slab = len(clean)
    strict, loose = bonds(final), bonds(final, scale=CUSHION)
    found = []
    touches = loose[n_slab:, :n_slab].reshape(count, -1)
    if not touches.any(axis=1).all():
        found.append("desorbed")
    if (bonds(initial[n_slab:]) != bonds(final[n_slab:])).any():
        found.append("dissociated")
    subsurface = np.flatnonzero(final.get_tags()[:n_slab] == 0)
    if strict[n_slab:][:, subsurface].any():
        found.append("intercalated")
    if _surface_changed(strict[:n_slab, :n_slab], loose[:n_slab, :n_slab], clean):
        found.append("surface_changed")
    return tuple(found)


def _surface_changed(
    strict: NDArray[np.bool_], loose: NDArray[np.bool_], clean: Atoms
) -> bool:
    made = strict & ~bonds(clean, scale=CUSHION)
    broken = bonds(clean) & ~loose
    return bool(made.any() or broken.any())


def bonds(atoms: Atoms, *, scale: float = 1.0) -> NDArray[np.bool_]:
    """Return the (atom, atom) matrix of bonds, through lateral images too.

    Not through the vacuum: what hovers under the next slab is bonded to nothing.
    """
    reach = scale * np.asarray(natural_cutoffs(atoms)) + SKIN_A
    first, second = neighbor_list("ij", _open_above(atoms), reach)
    matrix = np.zeros((len(atoms), len(atoms)), dtype=bool)
    matrix[first, second] = True
    return matrix


def _open_above(atoms: Atoms) -> Atoms:
    """Return a slab that does not repeat along its normal, the third vector."""
    alone = atoms.copy()
    alone.pbc = [True, True, False]
    return alone


DomainDistance = Callable[[Atoms], tuple[float, str]]
"""Beyond 1 is out of the domain."""

NEAREST = 0.75
"""Times the covalent radii: no atoms are nearer; N2, the shortest bond, has 0.77."""
FARTHEST = 1.5
"""Times the covalent radii: the nearest neighbor of an atom is no farther."""


def neighbor_distance(atoms: Atoms) -> tuple[float, str]:
    """Return how far the worst neighbor distance is from what bonds allow.

    With r the distance of an atom's nearest neighbor over the sum of their covalent
    radii, the larger of 0.75/r and r/1.5, for the worst atom. Above 1 two atoms have
    fallen into one another, or an atom is alone.
    """
    ratios = nearest_ratios(atoms)
    with np.errstate(divide="ignore"):
        distances = np.maximum(NEAREST / ratios, ratios / FARTHEST)
    worst = int(distances.argmax())
    name = f"{atoms.symbols[worst]} (atom {worst})"
    if ratios[worst] < 1.0:
        how = f"a neighbor at {ratios[worst]:.2f} times the covalent radii"
    elif np.isinf(ratios[worst]):
        how = f"no neighbor within {2 * FARTHEST:g} times the covalent radii"
    else:
        how = f"no neighbor nearer than {ratios[worst]:.2f} times the covalent radii"
    return float(distances[worst]), f"{name} has {how}"


def nearest_ratios(atoms: Atoms) -> np.ndarray:
    """Return for every atom the smallest distance over the sum of covalent radii."""
    radii = covalent_radii[atoms.numbers]
    first, second, distance = neighbor_list("ijd", atoms, 2 * FARTHEST * radii)
    ratios = np.full(len(atoms), np.inf)
    np.minimum.at(ratios, first, distance / (radii[first] + radii[second]))
    return ratios
