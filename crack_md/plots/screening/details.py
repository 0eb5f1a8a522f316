"""Parts of the page behind the table: intervals, failures, provenance."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from crack_md.plots.screening.markup import Markup, join, table, tag
from crack_md.plots.screening.view import ReportView
from crack_md.workflows.ranking.errors import AssumedErrors, percent
from crack_md.workflows.screening.reader import Row, number


def draw_errors(view: ReportView) -> Markup:
    """Return where intervals come from, and the slabs worth a second look."""
    record = view.ranking
    if record is None:
        stale = (view.screening.folder / "ranking.json").is_file()
        lead = "The ranking in this folder belongs to older results. " if stale else ""
        return tag(
            "p",
            lead + "These are single numbers without error bars: differences below 0.2 "
            "eV mean little. ",
            tag("code", f"crack-md rank {view.screening.folder}"),
            " adds intervals and rank probabilities, and corrects by DFT values with ",
            tag("code", "--calibrate"),
            ".",
        )
    return join(
        [
            tag("p", _shortlist(record)),
            *(tag("p", sentence) for sentence in _sentences(record)),
            _reference_table(record),
        ]
    )


def _shortlist(record: Mapping[str, Any]) -> Markup:
    names, top = record["shortlist"], record["settings"]["top"]
    what = "the best slab" if top == 1 else f"all of the best {top}"
    lead = (
        f"To have {what} with {percent(record['rank_level'])} probability, look at "
        f"{len(names)} of {len(record['slabs'])} slabs: "
    )
    return join(
        [lead, tag("strong", ", ".join(names[:40])), "…" if names[40:] else "."]
    )


def _sentences(record: Mapping[str, Any]) -> list[str]:
    settings = record["settings"]
    assumed, sentences = AssumedErrors(**settings["assumed"]), []
    between, corrections = record["between_models"], record["corrections"]
    for name, found in between.items():
        sentences.append(
            f"{name}* on slabs that were not re-scored is on the scale of "
            f"{record['rescored_with']}: {_law(found)}."
        )
    for name, found in corrections.items():
        sentences.append(
            f"Energies x of {name}* by the model are corrected by DFT: {_law(found)}."
        )
    bare = [name for name in record["adsorbates"] if name not in corrections]
    if bare:
        sentences.append(
            f"Errors of {' and '.join(f'{name}*' for name in bare)} are assumed, not "
            f"measured: {assumed.independent_text} for each slab and "
            f"{assumed.shared_eV:.2f} eV common to all ({assumed.source})"
            + (", and the spread of the committee." if record["has_committee"] else ".")
        )
    sentences.append(
        f"Intervals hold {percent(settings['level'])}. They are those of the reference "
        "method, not of experiment, and scaling relations add an error of their own. "
        f"Ranks: {settings['draws']:,} joint draws, seed {settings['seed']}."
    )
    return sentences


def _law(found: Mapping[str, Any]) -> str:
    offset = found["value_eV"] - found["slope"] * found["pivot_eV"]
    sign = "−" if offset < 0 else "+"
    slope = "" if found["kind"] != "line" else f"{found['slope']:.3f} "
    text = f"E = {slope}x {sign} {abs(offset):.3f} eV"
    if found["kind"] == "none":
        text = "no correction, errors measured"
    text += f" from {found['n']} value{'s' if found['n'] > 1 else ''}"
    checked = found.get("left_out")
    if checked is None:
        return text + "; too few to check it"
    text += (
        f"; predicting each from the others, the RMS error is {checked['rmse_eV']:.3f} "
        f"eV (uncorrected {found['rmse_before_eV']:.3f} eV)"
    )
    if checked["n_inside"] is not None:
        text += f", and {checked['n_inside']} of {found['n']} lie in their intervals"
    return text


def _reference_table(record: Mapping[str, Any]) -> Markup:
    values = record.get("reference_values") or []
    if not values:
        return join([])
    rows = [
        (
            value["slab"],
            f"{value['adsorbate']}* {value['site']}",
            f"{value['model_eV']:.3f}",
            f"{value['dft_eV']:.3f}",
            f"{value['dft_eV'] - value['model_eV']:+.3f}".replace("-", "−"),
        )
        for value in values
    ]
    header = ("slab", "site", "model / eV", "DFT / eV", "difference / eV")
    return table(header, rows, numbers=(2, 3, 4))


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
        parts.append(_failure_part(title, table(header, rows), len(rows)))
    if bad_sites:
        title = (
            f"Sites with an anomaly: {len(bad_sites)} of {len(view.screening.sites)}"
        )
        parts.append(_failure_part(title, _site_table(bad_sites), len(bad_sites)))
        parts.append(_glossary(bad_sites))
    if warned:
        title = f"Warnings: {len(warned)}"
        parts.append(
            _failure_part(title, table(("slab", "warning"), warned), len(warned))
        )
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


def _failure_part(title: str, content: Markup, size: int) -> Markup:
    """Return a part that is folded away where it is long."""
    summary = tag("summary", title)
    return tag("details", summary, content, open=size <= OPEN_UP_TO)


def _fixed(row: Row, column: str) -> str:
    value = number(row, column)
    return "–" if value is None else f"{value:.2f}"


LEFT_OUT = ("ranking",)
"""Shown elsewhere on the page."""
FIRST = ("model", "settings", "input", "pt111", "counts", "versions")


def draw_provenance(view: ReportView) -> Markup:
    """Return everything that summary.json says besides its table."""
    summary = view.screening.summary
    names = [name for name in FIRST if name in summary]
    names += [name for name in summary if name not in (*names, *LEFT_OUT)]
    grouped = [name for name in names if isinstance(summary[name], Mapping)]
    parts = [_part(name, summary[name]) for name in grouped]
    single = {name: summary[name] for name in names if name not in grouped}
    if single:
        parts.append(_part("run", single))
    if view.ranking is not None:
        record = {
            key: view.ranking.get(key)
            for key in ("settings", "calibrated_with", "rescored_with", "committee")
        }
        parts.append(_part("uncertainty", record))
    return tag("div", *parts, class_="columns")


def _part(name: str, content: Any) -> Markup:
    rows = list(_flat(content))
    return tag("div", tag("h3", name.replace("_", " ")), table(("", ""), rows))


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Markup]]:
    """Yield nested settings as one line each; what is empty is left out."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, f"{prefix} · {key}" if prefix else str(key))
    elif content not in (None, "", [], ()):
        if isinstance(content, list | tuple):
            content = ", ".join(map(str, content))
        if isinstance(content, float):
            content = f"{content:.7g}"
        long = isinstance(content, str) and len(content) > 40 and " " not in content
        yield prefix, tag("code", content) if long else join([str(content)])
