"""Screening results as files: results.csv, sites.csv and summary.json."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crack_md.errors import DataError
from crack_md.files import csv_bytes, package_versions, write_atomically
from crack_md.workflows.orr.constants import CORRECTIONS, SCALINGS
from crack_md.workflows.orr.diagram import STATES
from crack_md.workflows.orr.references import REFERENCES
from crack_md.workflows.screening.results import ScreenResult, SlabResult
from crack_md.workflows.screening.rows import Row, energy_column, site_rows, slab_rows

SAME_EVERYWHERE = ("corrections", "scaling", "reference")
DECIMALS = 4
"""Of numbers in the tables: a tenth of a millielectronvolt."""
PACKAGES = ("crack-md", "ase", "numpy", "spglib", "torch")


def write_tables(
    result: ScreenResult, folder: Path, **provenance: Any
) -> dict[str, Any]:
    """Write results.csv, sites.csv and summary.json; return the summary.

    Raises:
        DataError: a file cannot be written.
    """
    summary = summarise(result, **provenance)
    for name, rows in (
        ("results.csv", slab_rows(result)),
        ("sites.csv", site_rows(result)),
    ):
        table = csv_bytes(rows, decimals=DECIMALS, columns=["slab"])
        write_result(folder / name, table)
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    write_result(folder / "summary.json", (text + "\n").encode())
    return summary


def summarise(result: ScreenResult, **provenance: Any) -> dict[str, Any]:
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
            energy_column(settings.adsorbate): _rounded(
                reference.adsorption_energy if reference is not None else None
            ),
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
        "scaling": settings.scaling,
        "scaling_source": SCALINGS[settings.scaling].source,
    }


def _diagram(slab: SlabResult) -> Row:
    """Return the free energies of the intermediates and of the steps at U = 0."""
    if slab.diagram is None:
        return {}
    levels = zip(STATES, slab.diagram.levels(), strict=True)
    return {
        "free_energies_eV": {state: _rounded(level) for state, level in levels},
        "steps_eV": [_rounded(step) for step in slab.diagram.steps.all],
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
        name: _rounded(value)
        for name, value in row.items()
        if value not in (None, "") and name not in SAME_EVERYWHERE
    }


def _rounded(value: Any) -> Any:
    # adding zero turns -0.0 into 0.0
    return round(value, DECIMALS) + 0.0 if isinstance(value, float) else value
