"""Relaxed structures of a results folder, found again for the rows of its tables."""

import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from ase import Atoms
from ase.db import connect

from crack_md.workflows.results_folder import Candidate, Row, Screening, number
from crack_md.workflows.store import FILE_NAME

SAME_ENERGY_EV = 1e-3
CLEAN = ""


@dataclass(frozen=True, eq=False)
class Structures:
    """What ``results.db`` holds, by slab and starting site."""

    database: Any
    found: dict[tuple[str, str], list[tuple[float, int]]] = field(default_factory=dict)
    """(energy in eV, row) by slab and site; a name may have more than one structure."""
    by_site: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    sites: dict[tuple[str, str], Row] = field(default_factory=dict)

    @classmethod
    def of(cls, screening: Screening) -> "Structures":
        """Return the structures of a screening; none where its database is missing."""
        path = screening.folder / FILE_NAME
        if not path.is_file():
            return cls(None)
        database: Any = connect(path, type="db", use_lock_file=False)
        found, by_site = defaultdict(list), defaultdict(list)
        wanted = ["id", "energy", "key_value_pairs"]
        try:
            for row in database.select(columns=wanted, include_data=False):
                adsorbate = row.get("adsorbate", screening.adsorbate)
                if adsorbate != screening.adsorbate or "slab" not in row:
                    continue
                site, energy = row.get("site", CLEAN), row.get("energy")
                entry = (float("nan") if energy is None else float(energy), row.id)
                found[row.slab, site].append(entry)
                by_site[site].append(entry)
        except (sqlite3.Error, KeyError, ValueError):
            return cls(None)
        sites = {(row["slab"], row.get("site", "")): row for row in screening.sites}
        return cls(database, dict(found), dict(by_site), sites)

    def adsorbed(self, candidate: Candidate) -> Atoms | None:
        """Return the relaxed slab with its adsorbate; None where it is not stored."""
        return self._atoms(candidate, candidate.start, "energy_eV")

    def clean(self, candidate: Candidate) -> Atoms | None:
        """Return the relaxed clean slab; None where it is not stored."""
        return self._atoms(candidate, CLEAN, "clean_slab_energy_eV")

    def _atoms(self, candidate: Candidate, site: str, column: str) -> Atoms | None:
        row = self.sites.get((candidate.slab, candidate.start), {})
        energy = number(row, column)
        # the database writes names that look like numbers with this prefix
        names = candidate.slab, f"slab-{candidate.slab}"
        entries = [
            entry for name in names for entry in self.found.get((name, site), [])
        ]
        if energy is not None and not entries:  # stored under the name of its double
            entries = [
                entry
                for entry in self.by_site.get(site, [])
                if abs(entry[0] - energy) < SAME_ENERGY_EV
            ]
        if not entries:
            return None
        apart = [0.0 if energy is None else abs(e - energy) for e, _ in entries]
        _, row_id = entries[apart.index(min(apart))]
        return self.database.get(id=row_id).toatoms()
