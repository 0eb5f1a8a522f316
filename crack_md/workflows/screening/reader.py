"""Reads a screening back: tables, summary, and relaxed structures of its database.

Columns and statuses that this reader does not know are carried along untouched.
"""

import csv
import io
import json
import logging
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ase import Atoms
from ase.db import connect

from crack_md.errors import DataError
from crack_md.files import undefuse
from crack_md.workflows.orr import INTERMEDIATES, NO_SOLVATION, SOLVATED, Volcano
from crack_md.workflows.relax.store import FILE_NAME

Row = Mapping[str, str]


LABEL_SPREAD = "label_spread_eV"
"""Column of results.csv, where the model carries the spread of its labels."""
CAUSES = ("constants", "scaling", "model")
"""Of errors of U_L: half ranges in the columns ``U_L_by_<cause>_V``."""
KEY = "relaxation_key"
CLEAN_KEY = "clean_slab_key"
"""Columns of sites.csv: which relaxations of results.db a row is about."""
IS_BEST = "is_best"
"""Column of sites.csv: whether results.csv takes its energies from this row."""
log = logging.getLogger(__name__)


class CoverageColumns(NamedTuple):
    """Columns of results.csv about O* at one coverage, all in eV."""

    mean: str
    differential: str
    lateral: str


def coverage_columns(coverage_ML: float) -> CoverageColumns:
    """Return what the energies at a coverage are called."""
    at = f"at_{coverage_ML:g}_ML"
    return CoverageColumns(
        f"dE_O_mean_{at}_eV",
        f"dE_O_differential_{at}_eV",
        f"lateral_O_{at}_eV_per_pair",
    )


@dataclass(frozen=True)
class Adsorbed:
    """An adsorbate on the site of a slab that binds it most strongly."""

    adsorbate: str
    start: str
    """Label of the site where the relaxation began."""
    site: str
    """Label of the site where it ended."""
    dE_eV: float
    dG_eV: float | None
    """None where the corrections do not hold the adsorbate."""
    spread_eV: float | None = None
    """Standard deviation of a committee, where the screening ran one."""


@dataclass(frozen=True)
class Candidate:
    """A slab that the screening has ranked."""

    rank: int
    slab: str
    formula: str
    adsorbed: tuple[Adsorbed, ...]
    """At least one, in the order of the screening."""

    def on(self, adsorbate: str) -> Adsorbed | None:
        """Return what was found for an adsorbate; None where it has no result."""
        return next((a for a in self.adsorbed if a.adsorbate == adsorbate), None)


@dataclass(frozen=True, eq=False)
class SavedScreening:
    """The tables and the summary of a results folder."""

    folder: Path
    slabs: tuple[Row, ...]
    sites: tuple[Row, ...]
    summary: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the settings of the screening."""
        return self.summary.get("settings") or {}

    @property
    def model(self) -> Mapping[str, Any]:
        """Return what is known of the model."""
        return self.summary.get("model") or {}

    @property
    def adsorbates(self) -> tuple[str, ...]:
        """Return what was adsorbed, the one that columns are about first."""
        first = str(self.settings.get("adsorbate", "O"))
        named = self.settings.get("adsorbates") or [first]
        return tuple(str(name) for name in named)

    @property
    def coverages(self) -> tuple[float, ...]:
        """Return the coverages of O* in monolayers that were asked for."""
        return tuple(float(each) for each in self.settings.get("coverages_ML") or ())

    @property
    def scaling(self) -> str:
        """Return the name of the scaling relations."""
        return str(self.settings.get("scaling", ""))

    @property
    def water(self) -> str:
        """Return what the energies of OH* and OOH* hold of water, in words."""
        return water_in_words(self.settings)

    @property
    def volcano(self) -> Volcano:
        """Return the limiting potential as a function of one intermediate's ΔG.

        Raises:
            ConfigError: none was adsorbed, or the scaling is unknown.
        """
        known = [name for name in self.adsorbates if name in INTERMEDIATES]
        return Volcano.named((*known, self.adsorbates[0])[0], self.scaling)

    @property
    def label_spreads(self) -> dict[str, float]:
        """Return how far the teachers of a slab's metals disagree in eV, by slab.

        Empty where the model does not say.
        """
        found = {row["slab"]: number(row, LABEL_SPREAD) for row in self.slabs}
        return {slab: value for slab, value in found.items() if value is not None}

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """Return the ranked slabs, best first."""
        found = []
        for row in self.slabs:
            rank = number(row, "rank")
            adsorbed = tuple(
                each
                for name in self.adsorbates
                if (each := self._read_adsorbed(row, name))
            )
            if rank is not None and adsorbed:
                formula = row.get("formula", "")
                found.append(Candidate(int(rank), row["slab"], formula, adsorbed))
        return tuple(sorted(found, key=lambda candidate: candidate.rank))

    def _read_adsorbed(self, row: Row, name: str) -> Adsorbed | None:
        dE = number(row, energy_column(name))
        if dE is None:
            return None
        prefix = "" if name == self.adsorbates[0] else f"{name}_"
        # folders of earlier versions have the start under the first name
        start = row.get(f"{prefix}start_site") or row.get(f"{prefix}best_site", "")
        return Adsorbed(
            adsorbate=name,
            start=start,
            site=row.get(f"{prefix}final_site") or start,
            dE_eV=dE,
            dG_eV=number(row, f"dG_{name}_eV"),
            spread_eV=number(row, f"dE_{name}_std_eV"),
        )

    def sites_of(self, slab: str, adsorbate: str) -> tuple[Row, ...]:
        """Return the rows of sites.csv of a slab and an adsorbate."""
        return tuple(
            row
            for row in self._sites_by_slab.get(slab, ())
            if row.get("adsorbate") in (None, "", adsorbate)
        )

    @cached_property
    def _sites_by_slab(self) -> Mapping[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for row in self.sites:
            found.setdefault(row["slab"], []).append(row)
        return found


def water_in_words(settings: Mapping[str, Any]) -> str:
    """Return what the energies of OH* and OOH* hold of water, as headers say it."""
    name = settings.get("solvation")
    if name is None:
        return "none (screened by an earlier version)"
    if name != NO_SOLVATION:
        values = settings.get("solvation_eV") or {}
        shown = ", ".join(f"{key}* {value:+.3f} eV" for key, value in values.items())
        return f"{name} ({shown})".replace("-0", "−0")
    computed = [n for n in settings.get("adsorbates") or () if n in SOLVATED]
    if computed:
        return f"none around {' and '.join(f'{n}*' for n in computed)}"
    return "none, for neither OH* nor OOH* is computed"


def energy_column(adsorbate: str) -> str:
    """Return what the adsorption energy against H2O and H2 is called."""
    return f"dE_{adsorbate}_H2O_H2_eV"


def read_screening(folder: Path) -> SavedScreening:
    """Return what ``crack-md screen --out folder`` has written.

    Raises:
        DataError: the folder holds no finished screening, or its files are damaged.
    """
    missing = [
        name
        for name in ("results.csv", "sites.csv", "summary.json")
        if not (folder / name).is_file()
    ]
    if missing:
        raise DataError(
            f"'{folder}' holds no finished screening: no {', '.join(missing)}; give "
            "the --out folder of crack-md screen, after it has run to its end"
        )
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"cannot read '{folder / 'summary.json'}': {error}; run crack-md screen "
            "again with this --out to write it anew"
        ) from error
    slabs, sites = read_rows(folder / "results.csv"), read_rows(folder / "sites.csv")
    return SavedScreening(folder, slabs, sites, summary)


def read_rows(path: Path) -> tuple[Row, ...]:
    """Return the rows of a table by column; what a short row lacks is empty.

    Raises:
        DataError: it cannot be read, or is not a table with a column ``slab``.
    """
    return tuple(row for _, row in read_numbered_rows(path))


def read_numbered_rows(path: Path) -> tuple[tuple[int, Row], ...]:
    """Return rows as `read_rows` does, each with the number of its line in the file.

    Raises:
        DataError: it cannot be read, or is not a table with a column ``slab``.
    """
    try:
        # utf-8-sig: spreadsheets put a mark before the first column
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read '{path}': {reason}") from error
    header = text.partition("\n")[0].strip()
    # where a comma is the decimal point, spreadsheets part columns by semicolons
    delimiter = ";" if ";" in header and "," not in header else ","
    reader = csv.DictReader(
        io.StringIO(text), delimiter=delimiter, restval="", strict=True
    )
    try:
        rows = tuple((reader.line_num, _strip(row)) for row in reader)
    except csv.Error as error:
        raise DataError(f"'{path}', line {reader.line_num}: {error}") from error
    if "slab" not in [name.strip() for name in reader.fieldnames or ()]:
        raise DataError(
            f"'{path}' has no column 'slab'; found: {header[:80] or 'an empty file'}"
        )
    return rows


def number(row: Row, column: str) -> float | None:
    """Return a number of a row; None where it is absent, no number or not finite."""
    try:
        value = float(row.get(column, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _strip(row: Mapping[str | None, Any]) -> Row:
    # a row longer than its header has a list without a name
    return {
        (name or "").strip(): undefuse(str(value).strip())
        for name, value in row.items()
        if name
    }


@dataclass(frozen=True, eq=False)
class Structures:
    """The relaxed structures of ``results.db``, found by the keys of ``sites.csv``."""

    screening: SavedScreening
    database: Any = None
    row_ids: Mapping[str, int] = field(default_factory=dict)
    """Of the database, by the key of the relaxation."""

    @classmethod
    def of(cls, screening: SavedScreening) -> "Structures":
        """Return the structures of a screening; none where its database is missing.

        Tables of earlier versions have no keys: a warning then says what to do.
        """
        path = screening.folder / FILE_NAME
        if not path.is_file():
            return cls(screening)
        if any(KEY not in row for row in screening.sites):
            log.warning(
                "no structures from '%s': its sites.csv, of an earlier version, has no "
                "column %s; the same crack-md screen command writes it anew, and "
                "repeats no relaxation",
                screening.folder,
                KEY,
            )
            return cls(screening)
        database: Any = connect(path, type="db", use_lock_file=False)
        try:
            row_ids = {
                row.data["record"]["key"]: row.id
                for row in database.select(columns=["id", "data"])
                if "record" in row.data
            }
        except (sqlite3.Error, KeyError, ValueError):
            return cls(screening)
        return cls(screening, database, row_ids)

    def adsorbed(self, candidate: Candidate, adsorbed: Adsorbed) -> Atoms | None:
        """Return the relaxed slab with its adsorbate; None where it is not stored."""
        return self._read(candidate, adsorbed, KEY)

    def clean(self, candidate: Candidate, adsorbed: Adsorbed) -> Atoms | None:
        """Return the relaxed clean slab; None where it is not stored."""
        return self._read(candidate, adsorbed, CLEAN_KEY)

    def _read(
        self, candidate: Candidate, adsorbed: Adsorbed, column: str
    ) -> Atoms | None:
        """Return the structure that the row of a slab's best site names."""
        for row in self.screening.sites_of(candidate.slab, adsorbed.adsorbate):
            if row.get(IS_BEST) == str(True) and row[column] in self.row_ids:
                return self.database.get(id=self.row_ids[row[column]]).toatoms()
        return None
