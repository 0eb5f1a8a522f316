"""What can go wrong with an adsorbate during a relaxation, as OC20 defines it.

Two atoms are bonded where they are nearer than ``scale`` times the sum of their
covalent radii (ASE's natural cutoffs) plus 0.6 Å: the public code of OC20 builds its
neighbor lists with ASE's default skin, 0.3 Å per atom, which counts.

    desorbed         no atom of the adsorbate is bonded to the slab at scale 1.5
    dissociated      the bonds inside the adsorbate at scale 1 are not those it had
    intercalated     an atom of the adsorbate is bonded at scale 1 to a subsurface atom
                     (tag 0)
    surface_changed  two slab atoms are bonded at scale 1 that are not bonded at scale
                     1.5 in the relaxed clean slab, or the other way round

Each of them takes a site out of the ranking. `site_migrated` and `not_converged` are
noted beside them; `out_of_domain` is in `crack_md.workflows.surfaces.domain`.
"""

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list
from numpy.typing import NDArray

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
    final: Atoms, *, initial: Atoms, clean: Atoms
) -> tuple[str, ...]:
    """Return what went wrong, worst first.

    Args:
        final: the relaxed structure, its adsorbate last and tagged 2.
        initial: where the relaxation started, its atoms in the same order.
        clean: the relaxed slab without adsorbate; as given where the model cannot
            relax it.
    """
    n_slab = len(clean)
    strict, loose = bonds(final), bonds(final, scale=CUSHION)
    found = []
    if not loose[n_slab:, :n_slab].any():
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
    """Return the (atom, atom) matrix of bonds, through periodic images too."""
    reach = scale * np.asarray(natural_cutoffs(atoms)) + SKIN_A
    first, second = neighbor_list("ij", atoms, reach)
    matrix = np.zeros((len(atoms), len(atoms)), dtype=bool)
    matrix[first, second] = True
    return matrix
