"""The table of all slabs, which the page's script sorts, filters and opens."""

from collections.abc import Callable
from dataclasses import dataclass

from crack_md.plots.screening.view import ReportView, SlabView, signed
from crack_md.workflows.orr import EQUILIBRIUM_V
from crack_md.workflows.ranking.errors import percent
from crack_md.workflows.screening.reader import CAUSES, coverage_columns, number

NONE = "–"


@dataclass(frozen=True)
class TableColumn:
    """One column: its title, what it means, and what it shows of a slab."""

    title: str
    unit: str
    meaning: str
    value: Callable[[SlabView], float | str | None]
    digits: int | None = None
    """Of numbers; None for text."""
    shown: Callable[[SlabView], str] | None = None
    """Where the cell is more than its value."""

    def text(self, slab: SlabView) -> str:
        """Return what the cell of a slab shows."""
        value = self.value(slab)
        if value in (None, ""):
            return NONE
        if self.shown is not None:
            return self.shown(slab)
        if self.digits is None:
            return str(value)
        return signed(float(value or 0.0), self.digits)

    def raw(self, slab: SlabView) -> str | None:
        """Return the number that the script sorts by, or None."""
        value = self.value(slab)
        if self.digits is None or value is None:
            return None
        return f"{float(value):.6f}"


def table_columns(view: ReportView) -> tuple[TableColumn, ...]:
    """Return the columns that have something to show, from left to right."""
    first, *others = view.screening.adsorbates
    columns = [
        TableColumn("#", "", "rank by limiting potential", lambda s: s.rank, 0),
        TableColumn("slab", "", "name and formula", lambda s: s.name),
        TableColumn("status", "", "why there is no result", lambda s: s.status),
        TableColumn("site", "", f"where {first}* ended", _site_of(first)),
        _decimal(f"ΔE({first}*)", "eV", "against H₂O and H₂", _energy(first)),
        _free_energy(first, view),
        *(_free_energy(name, view) for name in others),
        _decimal("U_L", "V", "limiting potential against RHE", lambda s: s.U_L_V),
        *(_ranking_columns(view) if view.ranking else []),
        TableColumn(
            "sets",
            "V",
            "range of U_L over all sets of corrections and scalings, as screened",
            lambda s: number(s.row, "U_L_low_V"),
            2,
            _sets,
        ),
        TableColumn(
            "± c, s, m",
            "V",
            "half of the range of U_L by constants, by scaling, by the model's error "
            "(the spread of its labels, or what is assumed), each alone, as screened",
            lambda s: number(s.row, "U_L_by_model_V"),
            2,
            _causes,
        ),
        *_stability_columns(first),
        *(each for at in view.screening.coverages for each in _coverage_columns(at)),
        _decimal("η", "V", "overpotential, 1.23 V − U_L", _overpotential),
        _decimal(
            "vs Pt(111)",
            "eV",
            "ΔE minus that of Pt(111) by the same model, as screened",
            lambda s: number(s.row, f"dE_{first}_vs_Pt111_eV"),
        ),
        _decimal(
            "next site",
            "eV",
            "how much weaker the next distinct site binds",
            lambda s: number(s.row, "gap_to_next_site_eV"),
        ),
        TableColumn(
            "sites",
            "",
            "valid of all starting sites",
            lambda s: number(s.row, "n_valid_sites"),
            0,
            _sites,
        ),
        _decimal("θ", "ML", "coverage", lambda s: number(s.row, "coverage_ML")),
    ]
    return tuple(c for c in columns if any(_fill(c, slab) for slab in view.slabs))


def _fill(column: TableColumn, slab: SlabView) -> bool:
    value = column.value(slab)
    if column.title == "status":
        return slab.rank is None
    return value not in (None, "")


def _decimal(
    title: str, unit: str, meaning: str, value: Callable[[SlabView], float | None]
) -> TableColumn:
    return TableColumn(title, unit, meaning, value, 2)


def _site_of(name: str) -> Callable[[SlabView], str | None]:
    return lambda slab: slab.energies[name].site if name in slab.energies else None


def _energy(name: str) -> Callable[[SlabView], float | None]:
    return lambda slab: slab.energies[name].dE_eV if name in slab.energies else None


def _free_energy(name: str, view: ReportView) -> TableColumn:
    """Return the column of ΔG with its interval."""
    level = f" ± half of the {_percent(view)} interval" if view.ranking else ""

    def value(slab: SlabView) -> float | None:
        return slab.energies[name].dG_eV if name in slab.energies else None

    def shown(slab: SlabView) -> str:
        energy = slab.energies[name]
        half = "" if energy.half_width is None else f" ± {energy.half_width:.2f}"
        return signed(energy.dG_eV or 0.0, 2) + half

    meaning = f"free energy at 298 K{level}"
    return TableColumn(f"ΔG({name}*)", "eV", meaning, value, 2, shown)


def _sets(slab: SlabView) -> str:
    ends = number(slab.row, "U_L_low_V"), number(slab.row, "U_L_high_V")
    return " to ".join(NONE if end is None else signed(end, 2) for end in ends)


def _stability_columns(adsorbate: str) -> list[TableColumn]:
    """Return the columns of a screening with stability; empty ones are not shown."""

    def rises(slab: SlabView) -> str:
        row, clean = slab.row, number(slab.row, "segregation_eV")
        covered = number(row, f"segregation_with_{adsorbate}_eV")
        ends = [NONE if end is None else signed(end, 2) for end in (clean, covered)]
        turned = row.get("segregation_reversed", "")
        note = f"; turns {turned}" if turned else ""
        return f"{row['segregation_element']} {ends[0]} ({ends[1]}){note}"

    def leaves(slab: SlabView) -> str:
        potential = number(slab.row, "dissolution_V") or 0.0
        mark = " < U_L" if slab.dissolves else ""
        return f"{slab.row['dissolution_element']} {signed(potential, 2)}{mark}"

    return [
        _decimal(
            "E_f",
            "eV/atom",
            "formation energy against bulk elements by the same model",
            lambda s: number(s.row, "formation_eV_per_atom"),
        ),
        TableColumn(
            f"up ({adsorbate}*)",
            "eV",
            "cheapest swap with the layer beneath; in brackets under the adsorbate; "
            "negative: the element rises; elements whose sign turns",
            lambda s: number(s.row, "segregation_eV"),
            2,
            rises,
        ),
        TableColumn(
            "dissolves",
            "V",
            "potential at which an atom of the terrace dissolves first",
            lambda s: number(s.row, "dissolution_V"),
            2,
            leaves,
        ),
    ]


def _coverage_columns(coverage_ML: float) -> list[TableColumn]:
    """Return the columns of O* at a coverage."""
    names = coverage_columns(coverage_ML)
    shown = (
        ("ΔE(O*)", "eV", "for each O* against H₂O and H₂", names.mean),
        ("further O*", "eV", "ΔE beyond the next lower coverage", names.differential),
        ("pair", "eV", "for each pair of neighbors; positive: repel", names.lateral),
    )

    def of(column: str) -> Callable[[SlabView], float | None]:
        return lambda slab: number(slab.row, column)

    at = f"at {coverage_ML:g} ML"
    return [
        _decimal(f"{title} {at}", unit, f"{meaning}, {at} of O*", of(column))
        for title, unit, meaning, column in shown
    ]


def _causes(slab: SlabView) -> str:
    causes = (number(slab.row, f"U_L_by_{c}_V") for c in CAUSES)
    return " / ".join(NONE if half is None else f"{half:.2f}" for half in causes)


def _ranking_columns(view: ReportView) -> list[TableColumn]:
    """Return the columns that come from ranking.json."""
    assert view.ranking is not None
    top, level = view.ranking["settings"]["top"], percent(view.ranking["rank_level"])

    def of(key: str) -> Callable[[SlabView], float | None]:
        return lambda slab: None if slab.ranking is None else slab.ranking[key]

    def between(slab: SlabView) -> str:
        low, high = slab.potential_interval or (0.0, 0.0)
        return f"{signed(low, 2)} to {signed(high, 2)}"

    def places(slab: SlabView) -> str:
        row = slab.ranking or {}
        return f"{row.get('rank_low')} – {row.get('rank_high')}"

    potential, best = "interval of the limiting potential", "probability of being first"
    among = f"probability of being among the best {top}"
    return [
        TableColumn(_percent(view), "V", potential, of("U_L_low_V"), 2, between),
        TableColumn("P(best)", "", best, of("p_best"), 2),
        TableColumn(f"P(top {top})", "", among, of("p_top"), 2),
        TableColumn("ranks", level, "likely ranks", of("rank_high"), 0, places),
    ]


def _overpotential(slab: SlabView) -> float | None:
    return None if slab.U_L_V is None else EQUILIBRIUM_V - slab.U_L_V


def _sites(slab: SlabView) -> str:
    valid, total = number(slab.row, "n_valid_sites"), number(slab.row, "n_sites")
    return f"{valid:.0f} / {total:.0f}" if valid is not None and total else NONE


def _percent(view: ReportView) -> str:
    assert view.ranking is not None
    return percent(view.ranking["settings"]["level"])
