"""From adsorption energies of slabs to their order."""

from collections.abc import Sequence
from dataclasses import replace

from crack_md.workflows.orr.diagram import (
    INTERMEDIATES,
    limiting_potential_band,
    orr_diagram,
)
from crack_md.workflows.screening.results import ScreenSettings, SlabResult


def rank(
    slabs: Sequence[SlabResult],
    settings: ScreenSettings,
    pt111: SlabResult | None = None,
) -> tuple[SlabResult, ...]:
    """Return the slabs by falling limiting potential; failures come last.

    Where no intermediate of oxygen reduction was screened, the strongest adsorption of
    the first adsorbate comes first.
    """
    rated = [_rated(slab, settings, pt111) for slab in slabs]
    good = [slab for slab in rated if _order(slab) is not None]
    bad = [slab for slab in rated if _order(slab) is None]
    good.sort(key=lambda slab: (_order(slab) or 0.0, slab.name))
    ranked = [replace(slab, rank=place) for place, slab in enumerate(good, start=1)]
    return (*ranked, *bad)


def _order(slab: SlabResult) -> float | None:
    """Return what slabs are sorted by, rising; None for those without a result."""
    if slab.status != "ok":
        return None
    if slab.limiting_potential is not None:
        return -slab.limiting_potential
    return slab.best.adsorption_energy if slab.best is not None else None


def _rated(
    slab: SlabResult, settings: ScreenSettings, pt111: SlabResult | None
) -> SlabResult:
    """Return a slab with its diagram, its potentials and its distance to Pt(111)."""
    if slab.status != "ok":
        return slab
    energies, free_energies = _best_energies(slab)
    origin = _best_energies(pt111)[0] if pt111 is not None else {}
    slab = replace(
        slab,
        energies_vs_pt111={
            name: energy - origin[name]
            for name, energy in energies.items()
            if name in origin
        },
    )
    steps = {n: free_energies[n] for n in INTERMEDIATES if n in free_energies}
    if not steps:
        return slab
    diagram = orr_diagram(steps, scaling=settings.scaling)
    return replace(
        slab,
        diagram=diagram,
        limiting_potential=diagram.limiting_potential,
        overpotential=diagram.overpotential,
        limiting_potential_band=limiting_potential_band(
            {name: energies[name] for name in steps}
        ),
    )


def _best_energies(slab: SlabResult) -> tuple[dict[str, float], dict[str, float]]:
    """Return ΔE and ΔG in eV of every adsorbate on its best site."""
    energies, free_energies = {}, {}
    for name in dict.fromkeys(site.record.adsorbate for site in slab.sites):
        best = slab.best_of(name)
        if best is not None and best.adsorption_energy is not None:
            energies[name] = best.adsorption_energy
            if best.free_energy is not None:
                free_energies[name] = best.free_energy
    return energies, free_energies
