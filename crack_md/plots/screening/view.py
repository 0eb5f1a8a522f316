"""What the page shows of each slab: results and ranking side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from crack_md.workflows.ranking_files import read_ranking
from crack_md.workflows.results_folder import Candidate, Row, Screening, number

Interval = tuple[float, float]


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
    site: str
    rank: int | None
    dE_eV: float | None
    dG_eV: float | None
    U_L_V: float | None
    ranking: Mapping[str, Any] | None
    """What ranking.json says of it."""

    @property
    def free_energy_interval(self) -> Interval | None:
        """Return the interval of ΔG in eV, if there is a ranking."""
        if self.ranking is None:
            return None
        return self.ranking["dG_low_eV"], self.ranking["dG_high_eV"]

    @property
    def potential_interval(self) -> Interval | None:
        """Return the interval of U_L in V, if there is a ranking."""
        if self.ranking is None:
            return None
        return self.ranking["U_L_low_V"], self.ranking["U_L_high_V"]


@dataclass(frozen=True, eq=False)
class ReportView:
    """All that the page is made from."""

    screening: Screening
    ranking: Mapping[str, Any] | None
    """ranking.json; None where there is none, or it belongs to older results."""

    @classmethod
    def of(cls, screening: Screening) -> "ReportView":
        """Return the view of a results folder as it is now."""
        return cls(screening, read_ranking(screening.folder))

    @cached_property
    def slabs(self) -> tuple[SlabView, ...]:
        """Return all slabs, best first, those without a result at the end."""
        ranked = {row["slab"]: row for row in (self.ranking or {}).get("slabs", ())}
        views = [
            _slab_view(index, row, self.screening, ranked.get(row["slab"]))
            for index, row in enumerate(self.screening.slabs)
        ]
        last = len(views) + 1
        return tuple(sorted(views, key=lambda view: view.rank or last))

    @property
    def ranked(self) -> tuple[SlabView, ...]:
        """Return the slabs that have a result, best first."""
        return tuple(view for view in self.slabs if view.rank is not None)

    def candidate(self, view: SlabView) -> Candidate:
        """Return the screening's record of a ranked slab."""
        return self._candidates[view.name]

    @cached_property
    def _candidates(self) -> Mapping[str, Candidate]:
        return {c.slab: c for c in self.screening.candidates}

    @property
    def sites(self) -> Sequence[Row]:
        """Return the rows of sites.csv."""
        return self.screening.sites


def _slab_view(
    index: int, row: Row, screening: Screening, ranked: Mapping[str, Any] | None
) -> SlabView:
    rank = number(row, "rank")
    dE, dG = (
        number(row, screening.energy_column),
        number(row, screening.free_energy_column),
    )
    potential = number(row, "U_L_V")
    if ranked is not None:
        rank, dE, dG = ranked["rank"], ranked["dE_eV"], ranked["dG_eV"]
        potential = ranked["U_L_V"]
    return SlabView(
        index=index,
        row=row,
        name=row["slab"],
        formula=row.get("formula", ""),
        status=row.get("status", ""),
        error=row.get("error", ""),
        site=row.get("final_site") or row.get("best_site", ""),
        rank=None if rank is None or dG is None else int(rank),
        dE_eV=dE,
        dG_eV=dG,
        U_L_V=potential,
        ranking=ranked,
    )
