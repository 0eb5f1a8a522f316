"""Reference adsorption energies from a file, matched to the sites of a screening."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crack_md.errors import DataError
from crack_md.workflows.relax.relax import is_settled
from crack_md.workflows.screening.reader import (
    Candidate,
    Row,
    SavedScreening,
    energy_column,
    number,
    read_numbered_rows,
)

COLUMNS = "slab, dE_eV and, where needed, site and adsorbate"


@dataclass(frozen=True)
class ReferenceValue:
    """One adsorption energy by DFT beside what the model says of the same site."""

    slab: str
    adsorbate: str
    site: str
    dft_eV: float
    model_eV: float
    is_best: bool
    """Whether the site is the one that decides about the slab."""


def read_reference_values(
    path: Path, screening: SavedScreening
) -> tuple[ReferenceValue, ...]:
    """Return the values of a CSV file, against H2O and H2 as in the screening.

    Columns: slab, dE_eV (or dE), site (optional: by default the best one), adsorbate
    (optional: by default the first of the screening; rows of adsorbates that were not
    screened are left out).

    Raises:
        DataError: a row names no slab or site with a result, or no energy.
    """
    if not path.is_file():
        raise DataError(f"no such file: '{path}'; expected a CSV file with {COLUMNS}")
    rows = read_numbered_rows(path)
    column = _energy_column(path, [row for _, row in rows])
    candidates = {candidate.slab: candidate for candidate in screening.candidates}
    values, seen = [], set()
    for line, row in rows:
        adsorbate = row.get("adsorbate", "").strip("*") or screening.adsorbates[0]
        if not any(row.values()) or adsorbate not in screening.adsorbates:
            continue
        try:
            value = _value(row, column, adsorbate, candidates, screening)
            if (value.slab, value.adsorbate, value.site) in seen:
                raise ValueError(f"'{value.slab}' {value.site} is there twice")
        except ValueError as error:
            raise DataError(f"'{path}', line {line}: {error}") from error
        seen.add((value.slab, value.adsorbate, value.site))
        values.append(value)
    if not values:
        screened = " or ".join(screening.adsorbates)
        raise DataError(f"'{path}' holds no value for {screened}; expected {COLUMNS}")
    return tuple(values)


def _energy_column(path: Path, rows: Sequence[Row]) -> str:
    found = [name for name in ("dE_eV", "dE") if rows and name in rows[0]]
    if len(found) != 1:
        raise DataError(
            f"'{path}' has {'no' if not found else 'more than one'} column with "
            f"energies; expected {COLUMNS}"
        )
    return found[0]


def _value(
    row: Row,
    column: str,
    adsorbate: str,
    candidates: Mapping[str, Candidate],
    screening: SavedScreening,
) -> ReferenceValue:
    """Return the value of one row, or say what is wrong with it as a ValueError."""
    name, wanted = row["slab"], row.get("site", "")
    dft = number(row, column)
    if dft is None:
        raise ValueError(f"'{row.get(column, '')}' is no energy in eV")
    best = candidates[name].on(adsorbate) if name in candidates else None
    if best is None:
        near = difflib.get_close_matches(name, set(candidates) - {name}, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"the screening has no result for {adsorbate} on a slab '{name}'{hint}"
        )
    if wanted in ("", best.site):
        return ReferenceValue(name, adsorbate, best.site, dft, best.dE_eV, True)
    energies = _site_energies(name, adsorbate, screening)
    if wanted not in energies:
        raise ValueError(
            f"'{name}' has no converged site '{wanted}'; it has: {', '.join(energies)}"
        )
    return ReferenceValue(name, adsorbate, wanted, dft, energies[wanted], False)


def _site_energies(
    slab: str, adsorbate: str, screening: SavedScreening
) -> dict[str, float]:
    """Return the lowest ΔE in eV that ended on each site of a slab."""
    energies: dict[str, float] = {}
    for row in screening.sites_of(slab, adsorbate):
        dE = number(row, energy_column(adsorbate))
        settled = is_settled(row.get("status", ""), number(row, "fmax_eV_per_A"))
        if settled and dE is not None:
            site = row.get("final_site") or row.get("site", "")
            energies[site] = min(dE, energies.get(site, dE))
    return energies
