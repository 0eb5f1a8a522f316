"""The report of a screening, from its results folder to one HTML file."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from crack_md import __version__
from crack_md.errors import ConfigError
from crack_md.plots.screening.candidates import cards
from crack_md.plots.screening.details import (
    failures,
    glossary,
    problems,
    provenance,
    shortlist,
)
from crack_md.plots.screening.slab_table import table_columns
from crack_md.plots.screening.view import ReportView
from crack_md.plots.screening.volcano import volcano_svg
from crack_md.plots.style import as_markup
from crack_md.workflows.orr import INTERMEDIATES, Volcano
from crack_md.workflows.ranking.errors import percent
from crack_md.workflows.screening.reader import read_screening
from crack_md.workflows.screening.tables import write_result

FILE_NAME = "report.html"


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


def templates() -> Environment:
    """Return where templates of pages are read from."""
    return Environment(
        loader=PackageLoader("crack_md.plots"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def build_page(view: ReportView) -> str:
    """Return the page as HTML."""
    environment = templates()
    loader = environment.loader
    assert loader is not None
    style, script = (
        Markup(loader.get_source(environment, f"screening.{kind}")[0])
        for kind in ("css", "js")
    )
    return environment.get_template("screening.html").render(
        version=__version__,
        style=style,
        script=script,
        view=view,
        screening=view.screening,
        statuses=sorted({slab.status for slab in view.slabs}),
        tiles=_tiles(view),
        **_volcano(view),
        columns=table_columns(view),
        cards=cards(view),
        shortlist=None if view.ranking is None else shortlist(view.ranking),
        is_stale=(view.screening.folder / "ranking.json").is_file(),
        failures=failures(view),
        glossary=glossary(view),
        provenance=provenance(view),
        details=_details(view),
    )


def _volcano(view: ReportView) -> dict[str, Any]:
    """Return the volcano and what to say of it, or why there is none."""
    try:
        volcano = view.screening.volcano
    except ConfigError as error:
        return {"volcano": None, "volcano_note": f"Not shown: {error}."}
    note = _about_points(view, volcano)
    if any(slab.dissolves for slab in view.ranked):
        note += "Red rims: an atom of the surface dissolves below U_L. "
    return {"volcano": as_markup(volcano_svg(view, volcano)), "volcano_note": note}


def _about_points(view: ReportView, volcano: Volcano) -> str:
    """Return where points lie, and by what."""
    named = f"{volcano.scaling}, {volcano.source}"
    computed = [n for n in view.screening.adsorbates if n in INTERMEDIATES]
    others = " and ".join(f"{n}*" for n in INTERMEDIATES if n not in computed)
    if len(computed) == 1:
        return (
            f"{others} are inferred from {volcano.adsorbate}* by linear scaling "
            f"({named}): every point lies on the line, and the line has an error of "
            "its own. "
        )
    known = ", ".join(f"{name}*" for name in computed)
    rest = f", {others} by scaling" if others else ""
    return (
        f"Points use what was computed ({known}){rest}; the line takes all from "
        f"{volcano.adsorbate}* by linear scaling ({named}). "
    )


def _tiles(view: ReportView) -> list[tuple[str, str]]:
    """Return the figures that a reader wants first, and their meaning."""
    ranked, sites = view.ranked, view.screening.sites
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
    tiles.append((f"{len(ranked)} / {len(view.slabs)}", "slabs with a result"))
    good = sum(not problems(row) for row in sites)
    tiles.append((f"{good} / {len(sites)}", "sites without an anomaly"))
    if view.ranking is not None:
        top, level = view.ranking["settings"]["top"], view.ranking["rank_level"]
        what = "best slab" if top == 1 else f"best {top}"
        meaning = f"slabs hold the {what} with {percent(level)} probability"
        tiles.append((f"{len(view.ranking['shortlist'])}", meaning))
    return tiles


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
