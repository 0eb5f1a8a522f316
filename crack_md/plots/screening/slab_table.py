"""The table of all slabs, which the page's script sorts, filters and opens."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crack_md.plots.screening.markup import Markup, join, tag
from crack_md.plots.screening.view import ReportView, SlabView
from crack_md.workflows.orr import EQUILIBRIUM_V
from crack_md.workflows.results_folder import number
from crack_md.workflows.uncertainty import percent

NONE = "–"
STATUS_SHORT = 28


@dataclass(frozen=True)
class Column:
    """One column: its title, what it means, and what it shows of a slab."""

    title: str
    unit: str
    meaning: str
    value: Callable[[SlabView], float | str | None]
    digits: int | None = None
    """Of numbers; None for text."""
    shown: Callable[[SlabView], str | Markup] | None = None
    """Where the cell is more than its value."""


def draw_table(view: ReportView) -> Markup:
    """Return the controls and the table."""
    columns = table_columns(view)
    head = tag("tr", *(_heading(column) for column in columns))
    body = tag("tbody", *(_row(slab, columns) for slab in view.slabs))
    table = tag("table", tag("thead", head), body, id="slab-table")
    return join([_controls(view), tag("div", table, class_="scroll tall")])


def table_columns(view: ReportView) -> tuple[Column, ...]:
    """Return the columns that have something to show, from left to right."""
    name = view.screening.adsorbate
    columns = [
        Column("#", "", "rank by limiting potential", lambda s: s.rank, 0),
        Column("slab", "", "name and formula", lambda s: s.name, shown=_name),
        Column("site", "", "where the adsorbate ended", lambda s: s.site),
        _decimal(f"ΔE({name}*)", "eV", "against H₂O and H₂", lambda s: s.dE_eV),
        Column(
            f"ΔG({name}*)",
            "eV",
            _free_energy_meaning(view),
            lambda s: s.dG_eV,
            2,
            _interval,
        ),
        _decimal("U_L", "V", "limiting potential against RHE", lambda s: s.U_L_V),
        *(_ranking_columns(view) if view.ranking else []),
        _decimal("η", "V", "overpotential, 1.23 V − U_L", _overpotential),
        _decimal(
            "vs Pt(111)",
            "eV",
            "ΔE minus that of Pt(111) by the same model, as screened",
            lambda s: number(s.row, f"dE_{name}_vs_Pt111_eV"),
        ),
        _decimal(
            "next site",
            "eV",
            "how much weaker the next distinct site binds",
            lambda s: number(s.row, "gap_to_next_site_eV"),
        ),
        Column(
            "sites",
            "",
            "valid of all starting sites",
            lambda s: number(s.row, "n_valid_sites"),
            0,
            _sites,
        ),
        _decimal("θ", "ML", "coverage", lambda s: number(s.row, "coverage_ML")),
        Column(
            "status", "", "why there is no result", lambda s: s.status, shown=_status
        ),
    ]
    return tuple(c for c in columns if any(_filled(c, slab) for slab in view.slabs))


def _filled(column: Column, slab: SlabView) -> bool:
    value = column.value(slab)
    if column.title == "status":
        return slab.rank is None
    return value not in (None, "")


def _decimal(
    title: str, unit: str, meaning: str, value: Callable[[SlabView], float | None]
) -> Column:
    return Column(title, unit, meaning, value, 2)


def _free_energy_meaning(view: ReportView) -> str:
    level = f" ± half of the {_percent(view)} interval" if view.ranking else ""
    return f"free energy at 298 K{level}"


def _interval(slab: SlabView) -> str:
    assert slab.dG_eV is not None
    ends = slab.free_energy_interval
    half = "" if ends is None else f" ± {(ends[1] - ends[0]) / 2:.2f}"
    return _fixed(slab.dG_eV, 2) + half


def _ranking_columns(view: ReportView) -> list[Column]:
    """Return the columns that come from ranking.json."""
    assert view.ranking is not None
    top, level = view.ranking["settings"]["top"], percent(view.ranking["rank_level"])

    def of(key: str) -> Callable[[SlabView], float | None]:
        return lambda slab: None if slab.ranking is None else slab.ranking[key]

    def between(slab: SlabView) -> str:
        low, high = slab.potential_interval or (0.0, 0.0)
        return f"{_fixed(low, 2)} – {_fixed(high, 2)}"

    def places(slab: SlabView) -> str:
        row = slab.ranking or {}
        return f"{row.get('rank_low')} – {row.get('rank_high')}"

    potential, best = "interval of the limiting potential", "probability of being first"
    among = f"probability of being among the best {top}"
    return [
        Column(_percent(view), "V", potential, of("U_L_low_V"), 2, between),
        Column("P(best)", "", best, of("p_best"), 2),
        Column(f"P(top {top})", "", among, of("p_top"), 2),
        Column("ranks", level, "likely ranks", of("rank_high"), 0, places),
    ]


def _heading(column: Column) -> Markup:
    numeric = column.digits is not None
    return tag(
        "th",
        tag(
            "button",
            column.title,
            tag("span", column.unit, class_="unit"),
            type="button",
            title=column.meaning,
        ),
        scope="col",
        class_="number" if numeric else None,
        data_title=column.title,
        aria_sort="ascending" if column.title == "#" else None,
    )


def _row(slab: SlabView, columns: Sequence[Column]) -> Markup:
    return tag(
        "tr",
        *(_cell(slab, column) for column in columns),
        data_slab=slab.index,
        data_status=slab.status,
        data_potential=None if slab.U_L_V is None else f"{slab.U_L_V:.6f}",
        data_words=f"{slab.name} {slab.formula} {slab.site} {slab.status}".lower(),
        class_=None if slab.rank is not None else "failed",
    )


def _cell(slab: SlabView, column: Column) -> Markup:
    value = column.value(slab)
    if column.digits is None:
        return tag("td", column.shown(slab) if column.shown else value or NONE)
    shown = NONE if value is None else _fixed(float(value), column.digits)
    if column.shown is not None and value is not None:
        shown = column.shown(slab)
    raw = None if value is None else f"{float(value):.6f}"
    return tag("td", shown, class_="number", data_value=raw)


def _fixed(value: float, digits: int) -> str:
    """Return a number with a true minus, and no minus before zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _name(slab: SlabView) -> Markup:
    source = (slab.ranking or {}).get("source", "model")
    words = {"model": "", "DFT": "DFT"}.get(source, "re-scored")
    by = f"energy by {source}"
    extra = [" ", tag("span", words, class_="badge", title=by)] if words else []
    formula = tag("span", slab.formula, class_="formula")
    return tag("span", slab.name, " ", formula, *extra, class_="name")


def _overpotential(slab: SlabView) -> float | None:
    return None if slab.U_L_V is None else EQUILIBRIUM_V - slab.U_L_V


def _sites(slab: SlabView) -> str:
    valid, total = number(slab.row, "n_valid_sites"), number(slab.row, "n_sites")
    return f"{valid:.0f} / {total:.0f}" if valid is not None and total else NONE


def _status(slab: SlabView) -> Markup:
    if slab.rank is not None:
        return tag("span", slab.status or "ok", class_="status ok")
    return tag("span", slab.status.replace("_", " "), class_="status bad")


def _percent(view: ReportView) -> str:
    assert view.ranking is not None
    return percent(view.ranking["settings"]["level"])


def _controls(view: ReportView) -> Markup:
    """Return the fields that filter, and how many rows they leave."""
    statuses = Counter(slab.status for slab in view.slabs)
    choices = [tag("option", "all", value="")]
    choices += [
        tag("option", f"{status.replace('_', ' ')} ({count})", value=status)
        for status, count in sorted(statuses.items())
    ]
    return tag(
        "form",
        tag(
            "label",
            "Find ",
            tag(
                "input",
                id="find",
                type="search",
                placeholder="Pt Cu, fcc, −Ag …",
                autocomplete="off",
                title="Words of name, formula, site, status; − before a word excludes",
            ),
        ),
        tag(
            "label",
            "U_L ≥ ",
            tag("input", id="least", type="number", step="0.05", class_="short"),
            " V",
        ),
        *(
            [tag("label", "status ", tag("select", *choices, id="status"))]
            if len(statuses) > 1
            else []
        ),
        tag("output", f"{len(view.slabs)} of {len(view.slabs)}", id="count"),
        tag("button", "Show all", type="reset", id="show-all", hidden=True),
        class_="controls",
        id="controls",
    )
