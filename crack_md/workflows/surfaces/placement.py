"""Where adsorbates start: on which site, turned how far, and clear of the slab."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import get_distances

from crack_md.workflows.surfaces.adsorbates import Adsorbate
from crack_md.workflows.surfaces.sites import Site
from crack_md.workflows.surfaces.slab import Slab

ADSORBATE_TAG = 2
"""OC20's."""
CLEARANCE_SCALE = 0.8
"""Atoms that do not bind start no nearer than this times the covalent radii."""
LIFT_A, MOST_LIFTS = 0.1, 40
WOBBLE_DEG = 20.0
"""Random placements lean by up to this, as OC20's do."""


@dataclass(frozen=True, eq=False)
class Start:
    """One structure that a relaxation starts from."""

    adsorbate: Adsorbate
    site: Site
    azimuth_deg: int | None = None
    """Turn about the surface normal; 0 leans towards the nearest atom of the site.
    None where turning changes nothing."""
    seed: int | None = None
    """What random placements were drawn from."""

    @property
    def key(self) -> str:
        """Return what names this start among all of the slab, in every run."""
        turn = "" if self.azimuth_deg is None else f" turned {self.azimuth_deg}"
        drawn = "" if self.seed is None else f" seed {self.seed}"
        return f"{self.adsorbate.key} on {self.site.label}{turn}{drawn}"


def site_starts(
    adsorbate: Adsorbate, sites: Sequence[Site], *, orientations: int
) -> Iterator[Start]:
    """Yield every site with the adsorbate turned evenly about the surface normal."""
    turns = 1 if adsorbate.is_axial else orientations
    for site in sites:
        for number in range(turns):
            turn = None if adsorbate.is_axial else round(360 * number / turns)
            yield Start(adsorbate, site, turn)


def random_starts(
    adsorbate: Adsorbate, sites: Sequence[Site], *, seed: int
) -> Iterator[Start]:
    """Yield every random place with the adsorbate turned at random."""
    for number, site in enumerate(sites, start=1):
        turn = None
        if not adsorbate.is_axial:
            turn = int(np.random.default_rng([seed, number, 1]).integers(360))
        yield Start(adsorbate, site, turn, seed)


def place(slab: Slab, start: Start, *, relaxed: Atoms) -> Atoms:
    """Return ``relaxed`` with the adsorbate where it starts; its atoms come last.

    The site was found on the slab as given; it rides along with its contacts, which
    the relaxation of the clean slab has moved. The adsorbate takes OC20's tag 2.
    """
    contacts = list(start.site.contacts)
    moved = relaxed.positions[contacts] - slab.atoms.positions[contacts]
    adsorbate = _orient(start, slab)
    adsorbate.translate(start.site.position + moved.mean(axis=0))
    _lift(adsorbate, relaxed)
    adsorbate.set_tags(ADSORBATE_TAG)
    combined = relaxed.copy()
    combined.calc = None
    combined += adsorbate
    return combined


def _orient(start: Start, slab: Slab) -> Atoms:
    adsorbate = start.adsorbate.atoms.copy()
    if len(adsorbate) == 1:
        return adsorbate
    if start.seed is not None:
        number = int(start.site.label.rpartition("-")[2])
        lean = np.random.default_rng([start.seed, number, 2]).uniform(-1, 1, size=2)
        adsorbate.rotate(WOBBLE_DEG * lean[0], "x")
        adsorbate.rotate(WOBBLE_DEG * lean[1], "y")
    if start.azimuth_deg is not None:
        adsorbate.rotate(_direction_deg(start.site, slab) + start.azimuth_deg, "z")
    return adsorbate


def _direction_deg(site: Site, slab: Slab) -> float:
    """Return the angle from x to the nearest surface atom beside the site.

    The heavier of two atoms equally near decides, so that the choice turns with the
    slab.
    """
    a, b = slab.atoms.cell.array[:2]
    shifts = np.array([i * a + j * b for i in (-1, 0, 1) for j in (-1, 0, 1)])
    atoms = slab.atoms[slab.surface]
    images = (atoms.positions[None] + shifts[:, None] - site.position).reshape(-1, 3)
    numbers = np.tile(atoms.numbers, len(shifts))
    distance = np.linalg.norm(images[:, :2], axis=1)
    angle = np.degrees(np.arctan2(images[:, 1], images[:, 0]))
    beside = np.flatnonzero(distance > 0.3)
    order = np.lexsort(
        (
            np.round(angle[beside]) % 360,
            -numbers[beside],
            np.round(distance[beside], 1),
        )
    )
    return float(angle[beside[order[0]]])


def _lift(adsorbate: Atoms, substrate: Atoms) -> None:
    """Raise a molecule, in place, until only its binding atom touches the slab."""
    if len(adsorbate) == 1:
        return
    nearest = CLEARANCE_SCALE * (
        covalent_radii[adsorbate.numbers[1:], None] + covalent_radii[substrate.numbers]
    )
    for _ in range(MOST_LIFTS):
        _, distances = get_distances(
            adsorbate.positions[1:],
            substrate.positions,
            cell=substrate.cell,
            pbc=substrate.pbc,
        )
        if (distances >= nearest).all():
            return
        adsorbate.positions[:, 2] += LIFT_A
