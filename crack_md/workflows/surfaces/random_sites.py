"""Seeded random places on a surface, for what symmetry-distinct sites may miss."""

from dataclasses import replace

import numpy as np

from crack_md.workflows.surfaces.contact_surface import ContactSurface
from crack_md.workflows.surfaces.sites import Site, describe
from crack_md.workflows.surfaces.slab import Slab


def random_sites(
    slab: Slab, *, count: int, seed: int, adsorbate: str = "O"
) -> tuple[Site, ...]:
    """Return places where a ball, lowered anywhere above the cell, touches the slab.

    The nth place depends on the seed and n alone: a longer list begins like a shorter
    one, and every slab of the same cell gets the same places.

    Args:
        slab: a prepared slab.
        count: how many.
        seed: of NumPy's default generator.
        adsorbate: symbol of the atom that binds.
    """
    surface = ContactSurface.around(slab.atoms, adsorbate)
    sites = []
    for number in range(1, count + 1):
        fractions = np.random.default_rng([seed, number]).random(2)
        lateral = (fractions @ slab.atoms.cell.array[:2])[:2]
        site = describe(surface.landing(lateral), surface, slab)
        sites.append(replace(site, label=f"random-{number}"))
    return tuple(sites)


def some_sites(
    sites: tuple[Site, ...], *, limit: int | None, seed: int
) -> tuple[Site, ...]:
    """Return all sites, or a random choice of as many as the limit, in their order."""
    if limit is None or len(sites) <= limit:
        return sites
    chosen = np.random.default_rng(seed).choice(len(sites), limit, replace=False)
    return tuple(sites[index] for index in sorted(chosen))
