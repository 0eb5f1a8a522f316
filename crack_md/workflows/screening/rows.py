"""One row per slab and one per site, with units in the names of the columns."""

from typing import Any

from crack_md.workflows.orr.constants import WATER_FORMATION_EV
from crack_md.workflows.orr.references import REFERENCES
from crack_md.workflows.screening.results import (
    ScreenResult,
    ScreenSettings,
    SiteResult,
    SlabResult,
)
from crack_md.workflows.surfaces.adsorbates import Adsorbate

Row = dict[str, Any]


def slab_rows(result: ScreenResult) -> list[Row]:
    """Return one row per slab, best first, units in the column names."""
    return [_slab_row(slab, result.settings) for slab in result.slabs]


def site_rows(result: ScreenResult) -> list[Row]:
    """Return one row per start, the Pt(111) reference included."""
    slabs = list(result.slabs)
    if result.pt111 is not None and all(
        slab.name != result.pt111.name for slab in slabs
    ):
        slabs.append(result.pt111)
    return [
        _site_row(slab, site, result.settings) for slab in slabs for site in slab.sites
    ]


def energy_column(adsorbate: str, *, scale: str = "H2O_H2") -> str:
    """Return what an adsorption energy is called: ``dE_O_H2O_H2_eV``."""
    return f"dE_{adsorbate}_{scale}_eV"


def shown_scale(settings: ScreenSettings) -> str:
    """Return the scale that the chosen reference asks for: H2O_H2 or halfO2."""
    return REFERENCES[settings.reference].column


def _slab_row(slab: SlabResult, settings: ScreenSettings) -> Row:
    first, *others = settings.adsorbates
    best = slab.best_of(first.name) if slab.status == "ok" else None
    energies = _energies(best, first)
    halves = {name: energies.pop(name) for name in list(energies) if "halfO2" in name}
    row = {
        "rank": slab.rank,
        "slab": slab.name,
        "formula": slab.formula,
        "status": slab.status,
        "best_site": best.record.site if best is not None else None,
        "final_site": best.record.final_site if best is not None else None,
        **energies,
        "U_L_V": slab.limiting_potential,
        "overpotential_V": slab.overpotential,
        f"dE_{first.name}_vs_Pt111_eV": slab.energies_vs_pt111.get(first.name),
        "gap_to_next_site_eV": slab.gap_to_next if slab.status == "ok" else None,
        "n_sites": len(slab.sites),
        "n_valid_sites": slab.n_valid,
        "coverage_ML": slab.coverage,
        **halves,
    }
    for adsorbate in others:
        row |= _other_adsorbate(slab, adsorbate)
    return (
        row
        | _potentials(slab)
        | {
            "corrections": settings.corrections,
            "scaling": settings.scaling,
            "reference": settings.reference,
            "preparation": "; ".join(slab.preparation),
            "warnings": "; ".join(slab.warnings),
            "error": slab.error,
        }
    )


def _other_adsorbate(slab: SlabResult, adsorbate: Adsorbate) -> Row:
    """Return the columns of an adsorbate after the first, its name before them."""
    name = adsorbate.name
    best = slab.best_of(name) if slab.status == "ok" else None
    return {
        f"{name}_best_site": best.record.site if best is not None else None,
        f"{name}_final_site": best.record.final_site if best is not None else None,
        **_energies(best, adsorbate),
        f"dE_{name}_vs_Pt111_eV": slab.energies_vs_pt111.get(name),
    }


def _energies(site: SiteResult | None, adsorbate: Adsorbate) -> Row:
    """Return ΔE on both scales, and ΔG where it is known."""
    name, dE = adsorbate.name, site.adsorption_energy if site is not None else None
    row: Row = {
        energy_column(name): dE,
        f"dG_{name}_eV": site.free_energy if site is not None else None,
    }
    n_oxygen = adsorbate.composition.get("O", 0)
    if n_oxygen:
        half = None if dE is None else dE + n_oxygen * WATER_FORMATION_EV
        row[energy_column(name, scale="halfO2")] = half
    return row


def _potentials(slab: SlabResult) -> Row:
    """Return the band of U_L over all sets, and what the diagram rests on."""
    low, high = slab.limiting_potential_band or (None, None)
    diagram = slab.diagram
    return {
        "U_L_low_V": low,
        "U_L_high_V": high,
        "limiting_step": diagram.steps.limiting_step if diagram is not None else None,
        "inferred": " ".join(diagram.inferred) if diagram is not None else "",
    }


def _site_row(slab: SlabResult, site: SiteResult, settings: ScreenSettings) -> Row:
    record = site.record
    row: Row = {
        "slab": slab.name,
        "formula": slab.formula,
        "adsorbate": record.adsorbate,
        "site": record.site,
        "azimuth_deg": record.azimuth_deg,
        "environment": site.environment,
        "site_elements": site.elements,
        "multiplicity": site.multiplicity,
        "status": record.status,
        "anomalies": record.anomalies,
        "final_site": record.final_site,
        "final_elements": record.final_elements,
        "final_coordination": record.final_coordination,
        "migrated": record.migrated,
    }
    for adsorbate in settings.adsorbates:
        row |= _energies(
            site if adsorbate.name == record.adsorbate else None, adsorbate
        )
    return row | {
        "energy_eV": record.energy,
        "clean_slab_energy_eV": slab.clean.energy if slab.clean is not None else None,
        "height_A": record.height,
        "fmax_eV_per_A": record.max_force,
        "steps": record.n_steps,
        "domain_distance": record.domain_distance,
        "error": record.error,
    }
