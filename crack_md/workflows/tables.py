"""Screening results as files: results.csv, sites.csv and summary.json."""

import csv
import io
import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from crack_md.errors import DataError
from crack_md.workflows.orr_sets import CORRECTIONS, SCALINGS
from crack_md.workflows.results import (
    ScreenResult,
    ScreenSettings,
    SiteResult,
    SlabResult,
)

PACKAGES = ("crack-md", "ase", "numpy", "spglib", "torch")
Row = dict[str, Any]


def write_tables(
    result: ScreenResult, folder: Path, **provenance: Any
) -> dict[str, Any]:
    """Write results.csv, sites.csv and summary.json; return the summary.

    Raises:
        DataError: a file cannot be written.
    """
    summary = summarise(result, **provenance)
    write_atomically(folder / "results.csv", _csv(slab_rows(result)))
    write_atomically(folder / "sites.csv", _csv(site_rows(result)))
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / "summary.json", (text + "\n").encode())
    return summary


def slab_rows(result: ScreenResult) -> list[Row]:
    """Return one row per slab, best first, units in the column names."""
    return [_slab_row(slab, result.settings) for slab in result.slabs]


def site_rows(result: ScreenResult) -> list[Row]:
    """Return one row per starting site, the Pt(111) reference included."""
    slabs = list(result.slabs)
    if result.pt111 is not None and all(
        slab.name != result.pt111.name for slab in slabs
    ):
        slabs.append(result.pt111)
    return [
        _site_row(slab, site, result.settings) for slab in slabs for site in slab.sites
    ]


def summarise(result: ScreenResult, **provenance: Any) -> dict[str, Any]:
    """Return everything about a screening that fits on a page, ready for JSON."""
    settings, model = result.settings, result.model
    sites = [site.record.status for slab in result.slabs for site in slab.sites]
    reference = result.pt111.best if result.pt111 is not None else None
    return {
        "ranking": [_compact(row) for row in slab_rows(result)],
        "counts": {
            "slabs": dict(Counter(slab.status for slab in result.slabs)),
            "sites": dict(Counter(sites)),
            "relaxations_done": result.n_relaxed,
            "relaxations_reused": result.n_reused,
        },
        "pt111": {
            "source": result.pt111_source,
            _energy_column(settings): _rounded(
                reference.adsorption_energy if reference is not None else None
            ),
        },
        "model": {
            "name": model.name,
            "sha256": model.sha256,
            "energy_reference": model.energy_reference,
            "gas_references_eV": dict(model.gas_references),
        },
        "settings": {
            "adsorbate": settings.adsorbate,
            "optimizer": "LBFGS",
            "fmax_eV_per_A": settings.fmax,
            "steps": settings.steps,
            "maxstep_A": settings.maxstep,
            "corrections": settings.corrections,
            "corrections_source": CORRECTIONS[settings.corrections].source,
            "scaling": settings.scaling,
            "scaling_source": SCALINGS[settings.scaling].source,
        },
        "versions": _versions(),
        **provenance,
    }


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and move it into place.

    Raises:
        DataError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(
            f"cannot write '{path}': {error.strerror or error}; what was relaxed is "
            "kept in results.db: run the same command again"
        ) from error


def _slab_row(slab: SlabResult, settings: ScreenSettings) -> Row:
    best = slab.best if slab.status == "ok" else None
    return {
        "rank": slab.rank,
        "slab": slab.name,
        "formula": slab.formula,
        "status": slab.status,
        "best_site": best.record.site if best is not None else None,
        "final_site": best.record.final_site if best is not None else None,
        _energy_column(settings): best.adsorption_energy if best is not None else None,
        f"dG_{settings.adsorbate}_eV": best.free_energy if best is not None else None,
        "U_L_V": slab.limiting_potential,
        "overpotential_V": slab.overpotential,
        f"dE_{settings.adsorbate}_vs_Pt111_eV": slab.energy_vs_pt111,
        "gap_to_next_site_eV": slab.gap_to_next if slab.status == "ok" else None,
        "n_sites": len(slab.sites),
        "n_valid_sites": slab.n_valid,
        "coverage_ML": slab.coverage,
        "corrections": settings.corrections,
        "scaling": settings.scaling,
        "error": slab.error,
    }


def _site_row(slab: SlabResult, site: SiteResult, settings: ScreenSettings) -> Row:
    record = site.record
    return {
        "slab": slab.name,
        "formula": slab.formula,
        "site": record.site,
        "site_elements": site.elements,
        "multiplicity": site.multiplicity,
        "status": record.status,
        "final_site": record.final_site,
        "migrated": record.migrated,
        _energy_column(settings): site.adsorption_energy,
        f"dG_{settings.adsorbate}_eV": site.free_energy,
        "energy_eV": record.energy,
        "clean_slab_energy_eV": slab.clean.energy if slab.clean is not None else None,
        "height_A": record.height,
        "fmax_eV_per_A": record.max_force,
        "steps": record.n_steps,
        "error": record.error,
    }


def _energy_column(settings: ScreenSettings) -> str:
    return f"dE_{settings.adsorbate}_H2O_H2_eV"


def _compact(row: Mapping[str, Any]) -> Row:
    """Return a row for JSON: rounded, without what is empty or the same everywhere."""
    return {
        name: _rounded(value)
        for name, value in row.items()
        if value not in (None, "") and name not in ("corrections", "scaling")
    }


def _rounded(value: Any) -> Any:
    # A tenth of a millielectronvolt; adding zero turns -0.0 into 0.0.
    return round(value, 4) + 0.0 if isinstance(value, float) else value


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0] if rows else ["slab"])
    writer.writerows(_cells(row.values()) for row in rows)
    return text.getvalue().encode()


def _cells(values: Iterable[Any]) -> list[str]:
    return [
        ""
        if value is None
        else f"{_rounded(value):.4f}"
        if isinstance(value, float)
        else str(value)
        for value in values
    ]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
