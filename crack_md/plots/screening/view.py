"""What the page shows of each slab: results and ranking side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from crack_md.workflows.orr import INTERMEDIATES, free_energy_levels
from crack_md.workflows.ranking.results import read_ranking
from crack_md.workflows.screening.reader import Candidate, Row, SavedScreening, number

Interval = tuple[float, float]


def signed(value: float, digits: int) -> str:
    """Return a number with a true minus, and no minus before zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


@dataclass(frozen=True)
class EnergyView:
    """An adsorbate on its best site."""

    site: str
    dE_eV: float
    dG_eV: float | None
    interval_eV: Interval | None
    """Of ΔG, if there is a ranking."""
    source: str

    @property
    def half_width(self) -> float | None:
        """Return half of the interval in eV."""
        ends = self.interval_eV
        return None if ends is None else (ends[1] - ends[0]) / 2


@dataclass(frozen=True)
class SlabView:
    """One row of the table, and one point of the volcano if it has a result."""

    index: int
    """Place in results.csv."""
    row: Row
    name: str
    formula: str
    status: str
    error: str
    rank: int | None
    energies: Mapping[str, EnergyView]
    """By adsorbate."""
    scaling: str
    U_L_V: float | None
    ranking: Mapping[str, Any] | None
    """What ranking.json says of it."""

    @property
    def free_energies(self) -> Mapping[str, float]:
        """Return ΔG in eV of the intermediates that were computed."""
        known = {name: self.energies[name].dG_eV for name in self.energies}
        return {
            n: dG for n, dG in known.items() if dG is not None and n in INTERMEDIATES
        }

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Return ΔG in eV of O2, OOH*, O*, OH* and H2O; by scaling if not computed."""
        known = {name: np.array(dG) for name, dG in self.free_energies.items()}
        return tuple(float(dG) for dG in free_energy_levels(known, self.scaling))

    def free_energy(self, adsorbate: str) -> float:
        """Return ΔG in eV of an intermediate, by scaling if not computed."""
        return self.levels[1 + INTERMEDIATES.index(adsorbate)]

    @property
    def words(self) -> str:
        """Return what the search looks at."""
        sites = " ".join(energy.site for energy in self.energies.values())
        return f"{self.name} {self.formula} {sites} {self.status}".lower()

    @property
    def badges(self) -> list[str]:
        """Return by what its energies were corrected: DFT, or another model."""
        sources = dict.fromkeys(energy.source for energy in self.energies.values())
        return [source for source in sources if source != "model"]

    @property
    def dissolves(self) -> bool:
        """Return whether an atom of the surface leaves below the potential shown."""
        potential = number(self.row, "dissolution_V")
        if potential is None or self.U_L_V is None:
            return False
        return potential < self.U_L_V

    @property
    def limiting_step(self) -> int:
        """Return the number, 0 to 3, of the step that limits the potential."""
        return int(np.diff(self.levels).argmax())

    @property
    def potential_interval(self) -> Interval | None:
        """Return the interval of U_L in V, if there is a ranking."""
        if self.ranking is None:
            return None
        return self.ranking["U_L_low_V"], self.ranking["U_L_high_V"]


@dataclass(frozen=True, eq=False)
class ReportView:
    """All that the page is made from."""

    screening: SavedScreening
    ranking: Mapping[str, Any] | None
    """ranking.json; None where there is none, or it belongs to older results."""

    @classmethod
    def of(cls, screening: SavedScreening) -> "ReportView":
        """Return the view of a results folder as it is now."""
        return cls(screening, read_ranking(screening.folder))

    @cached_property
    def slabs(self) -> tuple[SlabView, ...]:
        """Return all slabs, best first, those without a result at the end."""
        ranked = {row["slab"]: row for row in (self.ranking or {}).get("slabs", ())}
        views = [
            self._slab_view(index, row, ranked.get(row["slab"]))
            for index, row in enumerate(self.screening.slabs)
        ]
        last = len(views) + 1
        return tuple(sorted(views, key=lambda view: view.rank or last))

    @property
    def ranked(self) -> tuple[SlabView, ...]:
        """Return the slabs that have a result, best first."""
        return tuple(view for view in self.slabs if view.rank is not None)

    @cached_property
    def candidates(self) -> Mapping[str, Candidate]:
        """Return the screening's records of ranked slabs by name."""
        return {candidate.slab: candidate for candidate in self.screening.candidates}

    def _slab_view(
        self, index: int, row: Row, ranked: Mapping[str, Any] | None
    ) -> SlabView:
        candidate = self.candidates.get(row["slab"])
        ranking = ranked or {}
        return SlabView(
            index=index,
            row=row,
            name=row["slab"],
            formula=row.get("formula", ""),
            status=row.get("status", ""),
            error=row.get("error", ""),
            rank=None if candidate is None else ranking.get("rank", candidate.rank),
            energies={} if candidate is None else _energies(candidate, ranking),
            scaling=self.screening.scaling,
            U_L_V=ranking.get("U_L_V", number(row, "U_L_V")),
            ranking=ranked,
        )


def _energies(
    candidate: Candidate, ranking: Mapping[str, Any]
) -> dict[str, EnergyView]:
    ranked = {energy["adsorbate"]: energy for energy in ranking.get("energies", ())}
    views = {}
    for found in candidate.adsorbed:
        corrected = ranked.get(found.adsorbate)
        if corrected is None:
            views[found.adsorbate] = EnergyView(
                found.site, found.dE_eV, found.dG_eV, None, "model"
            )
        else:
            views[found.adsorbate] = EnergyView(
                found.site,
                corrected["dE_eV"],
                corrected["dG_eV"],
                (corrected["dG_low_eV"], corrected["dG_high_eV"]),
                corrected["source"],
            )
    return views
