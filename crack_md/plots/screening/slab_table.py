"""The table of all slabs, which the page's script sorts, filters and opens."""

from collections import Counter
from collections.abc import Sequence

from crack_md.plots.screening.markup import Markup, join, tag
from crack_md.plots.screening.table_columns import (
    NONE,
    TableColumn,
    fixed,
    table_columns,
)
from crack_md.plots.screening.view import ReportView, SlabView


def draw_table(view: ReportView) -> Markup:
    """Return the controls and the table."""
    columns = table_columns(view)
    head = tag("tr", *(_heading(column) for column in columns))
    body = tag("tbody", *(_row(slab, columns) for slab in view.slabs))
    table = tag("table", tag("thead", head), body, id="slab-table")
    return join([_controls(view), tag("div", table, class_="scroll tall")])


def _heading(column: TableColumn) -> Markup:
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


def _row(slab: SlabView, columns: Sequence[TableColumn]) -> Markup:
    return tag(
        "tr",
        *(_cell(slab, column) for column in columns),
        data_slab=slab.index,
        data_status=slab.status,
        data_potential=None if slab.U_L_V is None else f"{slab.U_L_V:.6f}",
        data_words=_words(slab),
        class_=None if slab.rank is not None else "failed",
    )


def _words(slab: SlabView) -> str:
    """Return what the search looks at."""
    sites = " ".join(energy.site for energy in slab.energies.values())
    return f"{slab.name} {slab.formula} {sites} {slab.status}".lower()


def _cell(slab: SlabView, column: TableColumn) -> Markup:
    value = column.value(slab)
    if column.digits is None:
        return tag("td", column.shown(slab) if column.shown else value or NONE)
    shown = NONE if value is None else fixed(float(value), column.digits)
    if column.shown is not None and value is not None:
        shown = column.shown(slab)
    raw = None if value is None else f"{float(value):.6f}"
    return tag("td", shown, class_="number", data_value=raw)


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
