"""The report of a screening, from its results folder to one HTML file."""

import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from crack_md import __version__
from crack_md.errors import ConfigError
from crack_md.plots.screening.candidates import draw_candidates
from crack_md.plots.screening.details import (
    draw_errors,
    draw_failures,
    draw_provenance,
    problems,
)
from crack_md.plots.screening.markup import Markup, join, tag
from crack_md.plots.screening.slab_table import draw_table
from crack_md.plots.screening.view import ReportView
from crack_md.plots.screening.volcano import draw_volcano
from crack_md.workflows.orr import INTERMEDIATES, Volcano
from crack_md.workflows.ranking.errors import percent
from crack_md.workflows.screening.reader import read_screening
from crack_md.workflows.screening.results import write_result

FILE_NAME = "report.html"
SECTIONS = {
    "volcano": "Volcano",
    "slabs": "All slabs",
    "candidates": "Best candidates",
    "errors": "How sure is the order",
    "failures": "Anomalies and failures",
    "provenance": "Provenance",
}


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a results folder and return its path.

    The page holds everything it shows: it opens without a network, and without
    scripts it lacks only sorting, filtering, zoom and details.

    Raises:
        DataError: the folder holds no finished screening, or cannot be written.
    """
    page = build_page(ReportView.of(read_screening(folder)))
    write_result(folder / FILE_NAME, page.encode())
    return folder / FILE_NAME


def build_page(view: ReportView) -> str:
    """Return the page as HTML."""
    try:
        volcano, reason = view.screening.volcano, ""
    except ConfigError as error:
        volcano, reason = None, f"Not shown: {error}."
    content = {
        "volcano": tag("p", reason) if volcano is None else _volcano(view, volcano),
        "slabs": draw_table(view),
        "candidates": draw_candidates(view),
        "errors": draw_errors(view),
        "failures": draw_failures(view),
        "provenance": draw_provenance(view),
    }
    adsorbed = ", ".join(f"{name}*" for name in view.screening.adsorbates)
    title = f"{adsorbed} screening of {_count(len(view.slabs), 'surface')}"
    return Template(_template("screening.html")).substitute(
        title=join([title]),
        subtitle=join([_subtitle(view)]),
        navigation=tag(
            "nav",
            *(tag("a", name, href=f"#{key}") for key, name in SECTIONS.items()),
        ),
        tiles=_tiles(view),
        sections=join(
            tag("section", tag("h2", SECTIONS[key]), part, id=f"{key}")
            for key, part in content.items()
        ),
        details=_details(view),
        style=_template("screening.css"),
        script=_template("screening.js"),
        version=__version__,
    )


def _volcano(view: ReportView, volcano: Volcano) -> Markup:
    named = f"{volcano.scaling}, {volcano.source}"
    computed = [n for n in view.screening.adsorbates if n in INTERMEDIATES]
    others = " and ".join(f"{n}*" for n in INTERMEDIATES if n not in computed)
    if len(computed) == 1:
        lead = (
            f"{others} are inferred from {volcano.adsorbate}* by linear scaling "
            f"({named}): every point lies on the line, and the line has an error of "
            "its own. "
        )
    else:
        known = ", ".join(f"{name}*" for name in computed)
        rest = f", {others} by scaling" if others else ""
        lead = (
            f"Points use what was computed ({known}){rest}; the line takes all from "
            f"{volcano.adsorbate}* by linear scaling ({named}). "
        )
    use = (
        "Point at a mark for its numbers, click to find it in the table, drag to zoom."
    )
    return join(
        [
            tag("p", lead, tag("span", use, class_="scripted"), class_="note"),
            tag("div", draw_volcano(view, volcano), class_="figure"),
            tag("button", "Whole range", type="button", id="zoom-out", hidden=True),
        ]
    )


def _subtitle(view: ReportView) -> str:
    settings, model = view.screening.settings, view.screening.model
    parts = [
        f"model {model.get('name', '?')}",
        "ΔE against H₂O and H₂",
        f"corrections {settings.get('corrections', '?')}",
        f"scaling {settings.get('scaling', '?')}",
    ]
    return " · ".join(parts)


def _tiles(view: ReportView) -> Markup:
    """Return the figures that a reader wants first."""
    ranked, slabs = view.ranked, view.slabs
    tiles = []
    if ranked and ranked[0].U_L_V is not None:
        best = ranked[0]
        tiles.append(
            (f"{best.U_L_V:.2f} V", f"highest limiting potential: {best.name}")
        )
    name = view.screening.adsorbates[0]
    reference = view.screening.summary.get("pt111") or {}
    energy = reference.get(f"dE_{name}_H2O_H2_eV")
    if energy is not None:
        tiles.append((f"{energy:.2f} eV", f"ΔE({name}*) of Pt(111) by this model"))
    tiles.append((f"{len(ranked)} / {len(slabs)}", "slabs with a result"))
    bad = sum(bool(problems(row)) for row in view.screening.sites)
    tiles.append(
        (
            f"{len(view.screening.sites) - bad} / {len(view.screening.sites)}",
            "sites without an anomaly",
        )
    )
    if view.ranking is not None:
        shortlist, top = view.ranking["shortlist"], view.ranking["settings"]["top"]
        what = "best slab" if top == 1 else f"best {top}"
        level = percent(view.ranking["rank_level"])
        tiles.append(
            (f"{len(shortlist)}", f"slabs hold the {what} with {level} probability")
        )
    return tag(
        "div",
        *(tag("div", tag("b", figure), tag("span", words)) for figure, words in tiles),
        class_="tiles",
    )


def _details(view: ReportView) -> Markup:
    """Return what a row of the table opens up to, as JSON for the script.

    Sites lie below their slab's place in results.csv; columns that are empty
    everywhere are left out.
    """
    places = {row["slab"]: place for place, row in enumerate(view.screening.slabs)}
    columns = _fill(view.screening.slabs)
    site_columns = [
        c for c in _fill(view.screening.sites) if c not in ("slab", "formula")
    ]
    sites: dict[int, list[list[str]]] = {}
    for row in view.screening.sites:
        if row["slab"] in places:
            values = [row.get(column, "") for column in site_columns]
            sites.setdefault(places[row["slab"]], []).append(values)
    data: dict[str, Any] = {
        "columns": columns,
        "slabs": [[row.get(c, "") for c in columns] for row in view.screening.slabs],
        "siteColumns": site_columns,
        "sites": sites,
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # a name must not be able to end the script element
    return Markup(text.replace("<", "\\u003c"))


def _fill(rows: Any) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if any(row.get(name) for row in rows)]


def _template(name: str) -> str:
    return files("crack_md.plots").joinpath("templates", name).read_text("utf-8")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
