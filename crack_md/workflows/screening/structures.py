"""Relaxed structures of a results folder, found again for the rows of its tables."""

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ase import Atoms
from ase.db import connect

from crack_md.workflows.relax.store import FILE_NAME
from crack_md.workflows.screening.folder import (
    Adsorbed,
    Candidate,
    Screening,
    energy_column,
    number,
)

SAME_ENERGY_EV = 1e-3
CLEAN = ""
PREFIXES = ("", "no-", "slab-")
"""What the database writes before names that look like numbers."""
Entry = tuple[float, int]
"""Energy in eV and row."""


@dataclass(frozen=True, eq=False)
class Structures:
    """What ``results.db`` holds, by slab, adsorbate and starting site."""

    screening: Screening
    database: Any = None
    by_slab: dict[tuple[str, str, str], list[Entry]] = field(default_factory=dict)
    by_site: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)

    @classmethod
    def of(cls, screening: Screening) -> "Structures":
        """Return the structures of a screening; none where its database is missing."""
        path = screening.folder / FILE_NAME
        if not path.is_file():
            return cls(screening)
        database: Any = connect(path, type="db", use_lock_file=False)
        by_slab, by_site = defaultdict(list), defaultdict(list)
        wanted = ["id", "energy", "key_value_pairs"]
        try:
            for row in database.select(columns=wanted, include_data=False):
                site, energy = row.get("site", CLEAN), row.get("energy")
                named = row.get("adsorbate", screening.adsorbates[0])
                adsorbate = named if site else CLEAN
                entry = (float("nan") if energy is None else float(energy), row.id)
                by_slab[row.get("slab", ""), adsorbate, site].append(entry)
                by_site[adsorbate, site].append(entry)
        except (sqlite3.Error, KeyError, ValueError):
            return cls(screening)
        return cls(screening, database, dict(by_slab), dict(by_site))

    def adsorbed(self, candidate: Candidate, adsorbed: Adsorbed) -> Atoms | None:
        """Return the relaxed slab with its adsorbate; None where it is not stored."""
        energy = self._energy(candidate, adsorbed, "energy_eV")
        return self._atoms(candidate.slab, adsorbed.adsorbate, adsorbed.start, energy)

    def clean(self, candidate: Candidate, adsorbed: Adsorbed) -> Atoms | None:
        """Return the relaxed clean slab; None where it is not stored."""
        energy = self._energy(candidate, adsorbed, "clean_slab_energy_eV")
        return self._atoms(candidate.slab, CLEAN, CLEAN, energy)

    def _energy(
        self, candidate: Candidate, adsorbed: Adsorbed, column: str
    ) -> float | None:
        """Return a total energy in eV from the row of a slab's best site."""
        name = energy_column(adsorbed.adsorbate)
        for row in self.screening.sites_of(candidate.slab, adsorbed.adsorbate):
            # one site can be tried in several ways: the energy tells which was best
            if (
                row.get("site") == adsorbed.start
                and number(row, name) == adsorbed.dE_eV
            ):
                return number(row, column)
        return None

    def _atoms(
        self, slab: str, adsorbate: str, site: str, energy: float | None
    ) -> Atoms | None:
        entries: Sequence[Entry] = [
            entry
            for before in PREFIXES
            for entry in self.by_slab.get((before + slab, adsorbate, site), [])
        ]
        if energy is not None and not entries:  # stored under the name of its double
            entries = [
                entry
                for entry in self.by_site.get((adsorbate, site), [])
                if abs(entry[0] - energy) < SAME_ENERGY_EV
            ]
        if not entries:
            return None
        apart = [0.0 if energy is None else abs(e - energy) for e, _ in entries]
        _, row_id = entries[apart.index(min(apart))]
        return self.database.get(id=row_id).toatoms()
