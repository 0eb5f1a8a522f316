"""Reference adsorption energies from a file, matched to the sites of a screening."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crack_md.errors import DataError
from crack_md.workflows.results_folder import (
    Candidate,
    Row,
    Screening,
    number,
    read_numbered_rows,
)

COLUMNS = "slab, dE_eV and, where needed, site and adsorbate"


@dataclass(frozen=True)
class ReferenceValue:
    """One adsorption energy by DFT beside what the model says of the same site."""

    slab: str
    site: str
    dft_eV: float
    model_eV: float
    is_best: bool
    """Whether the site is the one that decides about the slab."""


def read_reference_values(
    path: Path, screening: Screening
) -> tuple[ReferenceValue, ...]:
    """Return the values of a CSV file, against H2O and H2 as in the screening.

    Columns: slab, dE_eV (or dE, or the name that it has in results.csv), site
    (optional: by default the best one), adsorbate (optional; rows of other adsorbates
    are left out).

    Raises:
        DataError: a row names no slab or site with a result, or no energy.
    """
    if not path.is_file():
        raise DataError(f"no such file: '{path}'; expected a CSV file with {COLUMNS}")
    rows = read_numbered_rows(path)
    column = _energy_column(path, [row for _, row in rows], screening)
    best = {candidate.slab: candidate for candidate in screening.candidates}
    values, seen = [], set()
    for line, row in rows:
        adsorbate = row.get("adsorbate", "").strip("*")
        if not any(row.values()) or adsorbate not in ("", screening.adsorbate):
            continue
        try:
            value = _value(row, column, best, screening)
            if (value.slab, value.site) in seen:
                raise ValueError(f"'{value.slab}' {value.site} is there twice")
        except ValueError as error:
            raise DataError(f"'{path}', line {line}: {error}") from error
        seen.add((value.slab, value.site))
        values.append(value)
    if not values:
        raise DataError(
            f"'{path}' holds no value for {screening.adsorbate}; expected {COLUMNS}"
        )
    return tuple(values)


def _energy_column(path: Path, rows: Sequence[Row], screening: Screening) -> str:
    names = ("dE_eV", "dE", screening.energy_column)
    found = [name for name in names if rows and name in rows[0]]
    if len(found) != 1:
        raise DataError(
            f"'{path}' has {'no' if not found else 'more than one'} column with "
            f"energies; expected {COLUMNS}"
        )
    return found[0]


def _value(
    row: Row, column: str, best: Mapping[str, Candidate], screening: Screening
) -> ReferenceValue:
    """Return the value of one row, or say what is wrong with it as a ValueError."""
    name, wanted = row["slab"], row.get("site", "")
    dft = number(row, column)
    if dft is None:
        raise ValueError(f"'{row.get(column, '')}' is no energy in eV")
    if name not in best:
        near = difflib.get_close_matches(name, best, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"the screening has no result for a slab '{name}'{hint}")
    chosen = best[name]
    if wanted in ("", chosen.site):
        return ReferenceValue(name, chosen.site, dft, chosen.dE_eV, True)
    energies = _site_energies(name, screening)
    if wanted not in energies:
        raise ValueError(
            f"'{name}' has no converged site '{wanted}'; it has: {', '.join(energies)}"
        )
    return ReferenceValue(name, wanted, dft, energies[wanted], False)


def _site_energies(slab: str, screening: Screening) -> dict[str, float]:
    """Return the lowest ΔE in eV that ended on each site of a slab."""
    energies: dict[str, float] = {}
    for row in screening.sites:
        dE = number(row, screening.energy_column)
        if row["slab"] == slab and row.get("status") == "converged" and dE is not None:
            site = row.get("final_site") or row.get("site", "")
            energies[site] = min(dE, energies.get(site, dE))
    return energies
