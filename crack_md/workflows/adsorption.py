"""Adsorbates: how they are placed, referenced, and where they ended up."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list

from crack_md.errors import ConfigError
from crack_md.workflows.contact import Points
from crack_md.workflows.sites import Site, lateral_vectors
from crack_md.workflows.slab import Slab

DESORBED_SCALE = 1.5
"""OC20: no bond to the slab even at 1.5 times the covalent radii."""
ADSORBATE_TAG = 2


@dataclass(frozen=True)
class Adsorbate:
    """A species, its atoms around the binding atom, and its gas-phase reference."""

    name: str
    atoms: Atoms
    """The first atom binds and lies at the origin; the surface is below."""
    reference: Mapping[str, float]
    """Gas molecules it is made of: O is H2O - H2."""


ADSORBATES: Mapping[str, Adsorbate] = MappingProxyType(
    {"O": Adsorbate("O", Atoms("O"), MappingProxyType({"H2O": 1.0, "H2": -1.0}))}
)


@dataclass(frozen=True)
class Landing:
    """What became of an adsorbate during a relaxation."""

    anomaly: str | None
    """``desorbed``, ``intercalated`` or None."""
    site: str | None
    """Label of the nearest site of the starting surface; None if desorbed."""
    migrated: bool
    height: float
    """Above the mean height of the nearest site's contacts."""


def adsorbate_named(name: str) -> Adsorbate:
    """Return a known adsorbate.

    Raises:
        ConfigError: the adsorbate is not known.
    """
    if name not in ADSORBATES:
        known = ", ".join(ADSORBATES)
        raise ConfigError(f"unknown adsorbate '{name}'; expected one of: {known}")
    return ADSORBATES[name]


def gas_energy(adsorbate: Adsorbate, gas_references: Mapping[str, float]) -> float:
    """Return the reference energy in eV of an adsorbate from those of gas molecules.

    Raises:
        ConfigError: a gas energy is missing.
    """
    missing = [gas for gas in adsorbate.reference if gas not in gas_references]
    if missing:
        raise ConfigError(
            f"adsorption energies of {adsorbate.name} need the energies of "
            f"{' and '.join(adsorbate.reference)} by the same model; missing: "
            f"{', '.join(missing)}; give them in eV, for "
            "instance --gas-reference H2O=-12.81,H2=-6.98"
        )
    return sum(n * gas_references[gas] for gas, n in adsorbate.reference.items())


def place(slab: Slab, site: Site, adsorbate: Adsorbate, *, relaxed: Atoms) -> Atoms:
    """Return ``relaxed`` with the adsorbate on a site; its atoms come last.

    The site was found on the slab as given; it rides along with its contacts, which
    the relaxation of the clean slab has moved. The adsorbate takes OC20's tag 2.
    """
    contacts = list(site.contacts)
    moved = relaxed.positions[contacts] - slab.atoms.positions[contacts]
    guest = adsorbate.atoms.copy()
    guest.translate(site.position + moved.mean(axis=0))
    guest.set_tags(ADSORBATE_TAG)
    combined = relaxed.copy()
    combined.calc = None
    combined += guest
    return combined


def landing(
    atoms: Atoms, *, slab: Slab, start: Site, sites: tuple[Site, ...]
) -> Landing:
    """Return where the binding atom of a relaxed structure is, and what is wrong."""
    n_slab = len(slab.atoms)
    binding = atoms.positions[n_slab]
    distances = [_lateral_distance(binding, site, slab) for site in sites]
    closest = sites[int(np.argmin(distances))]
    # Near a tie the starting site keeps its name.
    stayed = _lateral_distance(binding, start, slab) < min(distances) + 1e-3
    nearest = start if stayed else closest
    anomaly = _anomaly(atoms, n_slab)
    height = binding[2] - atoms.positions[list(nearest.contacts), 2].mean()
    return Landing(
        anomaly=anomaly,
        site=None if anomaly == "desorbed" else nearest.label,
        migrated=anomaly is None and not stayed,
        height=float(height),
    )


def _lateral_distance(point: Points, site: Site, slab: Slab) -> float:
    """Return how far in Å a point is sideways from the nearest member of a site."""
    offsets = lateral_vectors(site.members - point, slab.atoms)
    return float(np.linalg.norm(offsets, axis=1).min())


def _anomaly(atoms: Atoms, n_slab: int) -> str | None:
    """Return the OC20 anomaly of the adsorbate: desorbed, intercalated or None."""
    guests = np.arange(n_slab, len(atoms))
    cutoffs = np.asarray(natural_cutoffs(atoms))
    first, second = neighbor_list("ij", atoms, DESORBED_SCALE * cutoffs)
    near = np.isin(first, guests) & (second < n_slab)
    if not near.any():
        return "desorbed"
    first, second = neighbor_list("ij", atoms, cutoffs)
    bonded = np.isin(first, guests) & (second < n_slab)
    below = atoms.get_tags()[second[bonded]] == 0
    return "intercalated" if below.any() else None
