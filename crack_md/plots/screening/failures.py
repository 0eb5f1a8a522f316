"""What went wrong, slab by slab and site by site, and what the words mean."""

from collections import Counter
from collections.abc import Iterable, Sequence

from crack_md.plots.screening.markup import Markup, join, table, tag
from crack_md.plots.screening.view import ReportView
from crack_md.workflows.screening.reader import Row, number

HARMLESS = ("", "converged", "plateau", "site_migrated")
"""What a site may be without an anomaly; a plateau counts where forces are small."""
FLAGS = (
    "desorbed",
    "intercalated",
    "surface_changed",
    "dissociated",
    "out_of_domain",
)
"""Columns of sites.csv that may say so, besides the status and the list."""
MEANINGS = {
    "not_converged": "forces were still above the limit after the last step",
    "desorbed": "no bond to the slab, even at 1.5 times the covalent radii",
    "intercalated": "bonded to an atom below the surface",
    "surface_changed": "bonds among surface atoms were broken or formed",
    "dissociated": "bonds within the adsorbate were broken or formed",
    "out_of_domain": "unlike what the model was trained on",
    "failed": "the calculator gave no energy",
}
OPEN_UP_TO = 12


def draw_failures(view: ReportView) -> Markup:
    """Return slabs without a result, sites with an anomaly, and warnings."""
    bad_slabs = [slab for slab in view.slabs if slab.rank is None]
    bad_sites = [row for row in view.screening.sites if problems(row)]
    warned = [
        (row["slab"], text) for row in view.screening.slabs for text in _warned(row)
    ]
    if not bad_slabs and not bad_sites and not warned:
        return tag("p", "None: every slab has a result, no site an anomaly.")
    parts: list[Markup] = []
    if bad_slabs:
        rows = [
            (s.name, s.formula, s.status.replace("_", " "), s.error) for s in bad_slabs
        ]
        header = ("slab", "formula", "status", "reason")
        title = f"Slabs without a result: {len(bad_slabs)}"
        parts.append(_part(title, table(header, rows), len(rows)))
    if bad_sites:
        title = (
            f"Sites with an anomaly: {len(bad_sites)} of {len(view.screening.sites)}"
        )
        parts.append(_part(title, _site_table(bad_sites), len(bad_sites)))
        parts.append(_glossary(bad_sites))
    if warned:
        title = f"Warnings: {len(warned)}"
        parts.append(_part(title, table(("slab", "warning"), warned), len(warned)))
    return join(parts)


def problems(row: Row) -> tuple[str, ...]:
    """Return what is wrong with a site: its status, anomalies and flags."""
    listed = [name.strip() for name in row.get("anomalies", "").split(",")]
    flags = [name for name in FLAGS if row.get(name, "").lower() in ("true", "1")]
    named = [row.get("status", ""), *listed, *flags]
    return tuple(dict.fromkeys(name for name in named if name not in HARMLESS))


def _site_table(rows: Sequence[Row]) -> Markup:
    header = ("slab", "start", "end", "what", "height / Å", "F max / eV Å⁻¹", "reason")
    body = [
        (
            row["slab"],
            " ".join(filter(None, (row.get("adsorbate"), row.get("site")))),
            row.get("final_site", "") or "–",
            ", ".join(problems(row)).replace("_", " "),
            _fixed(row, "height_A"),
            _fixed(row, "fmax_eV_per_A"),
            row.get("error", ""),
        )
        for row in rows
    ]
    return table(header, body, numbers=(4, 5))


def _glossary(rows: Iterable[Row]) -> Markup:
    counts = Counter(problem for row in rows for problem in problems(row))
    entries = [
        join(
            [
                tag("dt", f"{problem.replace('_', ' ')} ({count})"),
                tag("dd", MEANINGS.get(problem, "")),
            ]
        )
        for problem, count in counts.most_common()
    ]
    return tag("dl", *entries, class_="glossary")


def _warned(row: Row) -> list[str]:
    return [text for name, text in row.items() if "warning" in name and text]


def _part(title: str, content: Markup, size: int) -> Markup:
    """Return a part that is folded away where it is long."""
    summary = tag("summary", title)
    return tag("details", summary, content, open=size <= OPEN_UP_TO)


def _fixed(row: Row, column: str) -> str:
    value = number(row, column)
    return "–" if value is None else f"{value:.2f}"
