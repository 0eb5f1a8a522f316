"""The tables and summary.json that a screening is written to."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase.symbols import Symbols

from crack_md.errors import DataError
from crack_md.files import csv_bytes, package_versions, write_atomically
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.orr import (
    CORRECTIONS,
    INTERMEDIATES,
    REFERENCES,
    SCALING_ERROR_EV,
    SCALINGS,
    SOLVATIONS,
    STATES,
    WATER_FORMATION_EV,
    PotentialErrors,
    potential_errors,
)
from crack_md.workflows.ranking.errors import AssumedErrors
from crack_md.workflows.screening.coverage import (
    coverage_cells,
    coverage_rows,
    coverage_settings,
)
from crack_md.workflows.screening.plan import ScreenSettings
from crack_md.workflows.screening.reader import CLEAN_KEY, IS_BEST, KEY, LABEL_SPREAD
from crack_md.workflows.screening.results import (
    ScreenResult,
    SiteResult,
    SlabResult,
    dissolves_first,
)
from crack_md.workflows.stability.metals import ELECTRODES, ELECTRODES_SOURCE
from crack_md.workflows.surfaces.adsorbates import Adsorbate

Row = dict[str, Any]


def slab_rows(result: ScreenResult) -> list[Row]:
    """Return one row per slab, best first, units in the column names.

    Key-value pairs of a database follow; those named as a column of ours are
    ``input_...``.
    """
    limits = result.model.limits
    given = list(dict.fromkeys(key for slab in result.slabs for key in slab.columns))
    rows = []
    for slab in result.slabs:
        row = _slab_row(slab, result)
        if limits is not None and limits.label_spreads:
            row[LABEL_SPREAD] = limits.label_spread(_numbers(slab.formula))
        if result.settings.stability:
            row |= _stability_columns(slab, result)
        if result.settings.coverages:
            row |= coverage_cells(slab.name, result)
        own = set(row)
        for key in given:  # what a database said of the slab, beside our columns
            row[f"input_{key}" if key in own else key] = slab.columns.get(key)
        rows.append(row)
    return rows


def _numbers(formula: str) -> list[int]:
    return Symbols.fromsymbols(formula).numbers.tolist()


def site_rows(result: ScreenResult) -> list[Row]:
    """Return one row per start, the Pt(111) reference included."""
    slabs = list(result.slabs)
    if result.pt111 is not None and all(
        slab.name != result.pt111.name for slab in slabs
    ):
        slabs.append(result.pt111)
    rows = []
    for slab in slabs:
        names = {site.record.adsorbate for site in slab.sites}
        best = [slab.best_of(name) for name in names if slab.status == "ok"]
        for site in slab.sites:
            row = _site_row(slab, site, result.settings)
            rows.append(row | {IS_BEST: any(site is one for one in best)})
    return rows


def energy_column(adsorbate: str, *, scale: str = "H2O_H2") -> str:
    """Return what an adsorption energy is called: ``dE_O_H2O_H2_eV``."""
    return f"dE_{adsorbate}_{scale}_eV"


def _slab_row(slab: SlabResult, result: ScreenResult) -> Row:
    settings = result.settings
    first, *others = settings.adsorbates
    best = slab.best_of(first.name) if slab.status == "ok" else None
    energies = _energies(best, first)
    halves = {name: energies.pop(name) for name in list(energies) if "halfO2" in name}
    row = {
        "rank": slab.rank,
        "slab": slab.name,
        "formula": slab.formula,
        "status": slab.status,
        **_best_site(best),
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
        | _potentials(slab, result)
        | {
            "corrections": settings.corrections,
            "scaling": settings.scaling_set,
            "solvation": settings.solvation_set,
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
        **{f"{name}_{column}": value for column, value in _best_site(best).items()},
        **_energies(best, adsorbate),
        f"dE_{name}_vs_Pt111_eV": slab.energies_vs_pt111.get(name),
    }


def _best_site(best: SiteResult | None) -> Row:
    """Return the site in words, ``bridge to fcc`` where it moved, and both its ends."""
    if best is None:
        return {"best_site": None, "start_site": None, "final_site": None}
    start, end = best.record.site, best.record.final_site
    words = f"{start} to {end}" if best.record.migrated and end else start
    return {"best_site": words, "start_site": start, "final_site": end}


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


def _potentials(slab: SlabResult, result: ScreenResult) -> Row:
    """Return the band of U_L over all sets, its causes, and what U_L rests on."""
    low, high = slab.limiting_potential_band or (None, None)
    diagram, errors = slab.diagram, _potential_errors(slab, result)
    return {
        "U_L_low_V": low,
        "U_L_high_V": high,
        "U_L_by_constants_V": None if errors is None else errors.constants_V,
        "U_L_by_scaling_V": None if errors is None else errors.scaling_V,
        "U_L_by_model_V": None if errors is None else errors.model_V,
        "limiting_step": diagram.steps.limiting_step if diagram is not None else None,
        "inferred": " ".join(diagram.inferred) if diagram is not None else "",
    }


def _stability_columns(slab: SlabResult, result: ScreenResult) -> Row:
    """Return what of a slab's stability fits into its row; stability.csv has all."""
    found = result.stability.get(slab.name)
    rises = found.rises if found is not None else None
    leaves = dissolves_first(slab, result)
    covered = f"segregation_with_{result.settings.adsorbate}_eV"
    return {
        "formation_eV_per_atom": found.formation_eV if found is not None else None,
        "segregation_element": rises.element if rises is not None else "",
        "segregation_eV": rises.segregation_eV if rises is not None else None,
        covered: rises.segregation_adsorbed_eV if rises is not None else None,
        "segregation_reversed": " ".join(found.reversed_elements) if found else "",
        "dissolution_element": leaves.element,
        "dissolution_V": leaves.potential_V,
        "dissolves_below_U_L": leaves.below,
        "stability_notes": "; ".join(found.notes) if found is not None else "",
    }


def stability_rows(result: ScreenResult) -> list[Row]:
    """Return one row per slab and element: segregation and dissolution."""
    covered = f"segregation_with_{result.settings.adsorbate}_eV"
    return [
        {
            "slab": slab.name,
            "element": atom.element,
            "segregation_eV": atom.segregation_eV,
            covered: atom.segregation_adsorbed_eV,
            "segregation_reversed": atom.is_reversed,
            "dissolution_V": atom.dissolution_V,
            "standard_potential_V": electrode.potential_V if electrode else None,
            "electrons": electrode.electrons if electrode else None,
        }
        for slab in result.slabs
        if slab.name in result.stability
        for atom in result.stability[slab.name].atoms
        for electrode in (ELECTRODES.get(atom.element),)
    ]


def _potential_errors(slab: SlabResult, result: ScreenResult) -> PotentialErrors | None:
    """Return what each cause leaves open in U_L; None for a slab without one."""
    settings = result.settings
    if slab.diagram is None:
        return None
    best = {name: slab.best_of(name) for name in INTERMEDIATES}
    return potential_errors(
        {
            name: site.adsorption_energy
            for name, site in best.items()
            if site is not None and site.adsorption_energy is not None
        },
        error_eV=model_error(slab, result.model),
        corrections=settings.corrections,
        scaling=settings.scaling_set,
        solvation=settings.solvation,
    )


def model_error(slab: SlabResult, model: ModelInfo) -> float:
    """Return the error in eV of one adsorption energy on a slab.

    The spread of the labels of its metals where the model carries it; else what
    `AssumedErrors` assumes, shared and own part together.
    """
    limits, assumed = model.limits, AssumedErrors()
    spread = None if limits is None else limits.label_spread(_numbers(slab.formula))
    both = math.hypot(assumed.shared_eV, assumed.independent_eV)
    return both if spread is None else spread


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
        "fire_from_step": record.stalled_at,
        "domain_distance": record.domain_distance,
        "error": record.error,
        KEY: record.key,
        CLEAN_KEY: slab.clean.key if slab.clean is not None else "",
    }


STABILITY_NAME = "stability.csv"
COVERAGE_NAME = "coverage.csv"
SAME_EVERYWHERE = ("corrections", "scaling", "solvation", "reference")
DECIMALS = 4
"""Decimals of numbers in the tables: 0.1 meV."""
PACKAGES = ("crack-md", "ase", "numpy", "spglib", "torch")


def write_tables(
    result: ScreenResult, folder: Path, **provenance: Any
) -> dict[str, Any]:
    """Write results.csv, sites.csv and summary.json; return the summary.

    With stability also stability.csv, with coverages coverage.csv.

    Raises:
        DataError: a file cannot be written.
    """
    summary = summarize(result, **provenance)
    tables = {"results.csv": slab_rows(result), "sites.csv": site_rows(result)}
    for name, rows_of, is_asked in (
        (STABILITY_NAME, stability_rows, result.settings.stability),
        (COVERAGE_NAME, coverage_rows, result.settings.coverages),
    ):
        if is_asked:
            tables[name] = rows_of(result)
        else:  # of an earlier run, it would be about other slabs
            (folder / name).unlink(missing_ok=True)
    for name, rows in tables.items():
        table = csv_bytes(rows, decimals=DECIMALS, columns=["slab"])
        write_result(folder / name, table)
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    write_result(folder / "summary.json", (text + "\n").encode())
    return summary


def summarize(result: ScreenResult, **provenance: Any) -> dict[str, Any]:
    """Return everything about a screening that fits on a page, ready for JSON."""
    model, settings = result.model, result.settings
    sites = [site.record.status for slab in result.slabs for site in slab.sites]
    reference = result.pt111.best if result.pt111 is not None else None
    rows = zip(result.slabs, slab_rows(result), strict=True)
    return {
        "ranking": [_compact(row) | _diagram(slab) for slab, row in rows],
        "counts": {
            "slabs": dict(Counter(slab.status for slab in result.slabs)),
            "sites": dict(Counter(sites)),
            "relaxations_done": result.n_relaxed,
            "relaxations_reused": result.n_reused,
        },
        "pt111": {
            "source": result.pt111_source,
            energy_column(settings.adsorbate): _round(
                reference.adsorption_energy if reference is not None else None
            ),
            **_pt111_potentials(result),
        },
        "model": {
            "name": model.name,
            "sha256": model.sha256,
            "energy_reference": model.energy_reference,
            "gas_references_eV": dict(model.gas_references),
            "forces": model.forces,
            "spin_polarised": model.spin_polarised,
            "dtype": model.dtype,
        },
        "settings": _settings(result),
        "versions": package_versions(PACKAGES),
        **provenance,
    }


def _pt111_potentials(result: ScreenResult) -> Row:
    """Return U_L of Pt(111) with water, here and as published with the same water."""
    published = SOLVATIONS[result.settings.solvation_set].pt111_V
    if published is None or result.pt111 is None:
        return {}
    found = _round(result.pt111.limiting_potential)
    return {"U_L_V": found, "published_U_L_V": published}


def _settings(result: ScreenResult) -> dict[str, Any]:
    settings = result.settings
    return {
        "adsorbate": settings.adsorbate,
        "adsorbates": [adsorbate.name for adsorbate in settings.adsorbates],
        "optimizer": settings.optimizer,
        "fmax_eV_per_A": settings.fmax,
        "steps": settings.steps,
        "maxstep_A": settings.maxstep,
        "orientations": settings.orientations,
        "random_placements": settings.random_placements,
        "max_sites": settings.max_sites,
        "seed": settings.seed,
        "reference": settings.reference,
        "reference_source": REFERENCES[settings.reference].source,
        "gas_energies_eV": dict(settings.gas_energies(result.model)),
        "corrections": settings.corrections,
        "corrections_source": CORRECTIONS[settings.corrections].source,
        "scaling": settings.scaling_set,
        "scaling_source": SCALINGS[settings.scaling_set].source,
        "scaling_has_water": SCALINGS[settings.scaling_set].has_water,
        "scaling_error_eV": SCALING_ERROR_EV,
        "solvation": settings.solvation_set,
        "solvation_eV": dict(SOLVATIONS[settings.solvation_set].stabilization),
        "solvation_source": SOLVATIONS[settings.solvation_set].source,
        **({"stability": ELECTRODES_SOURCE} if settings.stability else {}),
        **(coverage_settings(settings) if settings.coverages else {}),
    }


def _diagram(slab: SlabResult) -> Row:
    """Return the free energies of the intermediates and of the steps at U = 0."""
    if slab.diagram is None:
        return {}
    levels = zip(STATES, slab.diagram.levels(), strict=True)
    return {
        "free_energies_eV": {state: _round(level) for state, level in levels},
        "steps_eV": [_round(step) for step in slab.diagram.steps.all],
    }


def write_result(path: Path, content: bytes) -> None:
    """Write a file of the results folder, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    try:
        write_atomically(path, content)
    except DataError as error:
        raise DataError(
            f"{error}; what was relaxed is kept in results.db: run the same command "
            "again"
        ) from error


def _compact(row: Mapping[str, Any]) -> Row:
    """Return a row for JSON: rounded, without what is empty or the same everywhere."""
    return {
        name: _round(value)
        for name, value in row.items()
        if value not in (None, "") and name not in SAME_EVERYWHERE
    }


def _round(value: Any) -> Any:
    # adding zero turns -0.0 into 0.0
    return round(value, DECIMALS) + 0.0 if isinstance(value, float) else value
