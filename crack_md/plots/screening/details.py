"""Parts of the page behind the table: intervals, failures, provenance."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from crack_md.plots.screening.view import ReportView
from crack_md.workflows.ranking.errors import AssumedErrors, percent
from crack_md.workflows.screening.reader import Row, number


class Table(NamedTuple):
    """A table of the page."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    """Places of columns that align to the right."""

    @property
    def is_open(self) -> bool:
        """Return whether it is short enough to be shown at once."""
        return len(self.rows) <= OPEN_UP_TO


class Shortlist(NamedTuple):
    """Which slabs deserve a second look, and why one cannot be sure."""

    lead: str
    names: str
    sentences: Sequence[str]
    values: Table
    """Of DFT, that corrected the model."""


def shortlist(record: Mapping[str, Any]) -> Shortlist:
    """Return the slabs worth a second look, and where intervals come from."""
    names, top = record["shortlist"], record["settings"]["top"]
    what = "the best slab" if top == 1 else f"all of the best {top}"
    lead = (
        f"To have {what} with {percent(record['rank_level'])} probability, look at "
        f"{len(names)} of {len(record['slabs'])} slabs: "
    )
    values = _reference_table(record.get("reference_values") or [])
    return Shortlist(lead, ", ".join(names[:40]), _sentences(record), values)


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


def _reference_table(values: Sequence[Mapping[str, Any]]) -> Table:
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
    return Table("", header, rows, (2, 3, 4))


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


def failures(view: ReportView) -> list[Table]:
    """Return slabs without a result, sites with an anomaly, and warnings, if any."""
    slabs = [
        (s.name, s.formula, s.status.replace("_", " "), s.error)
        for s in view.slabs
        if s.rank is None
    ]
    sites = [_site_row(row) for row in view.screening.sites if problems(row)]
    warned = [
        (row["slab"], text)
        for row in view.screening.slabs
        for name, text in row.items()
        if ("warning" in name or name == "coverage_notes") and text
    ]
    tables = [
        Table(
            f"Slabs without a result: {len(slabs)}",
            ("slab", "formula", "status", "reason"),
            slabs,
        ),
        Table(
            f"Sites with an anomaly: {len(sites)} of {len(view.screening.sites)}",
            ("slab", "start", "end", "what", "height / Å", "F max / eV Å⁻¹", "reason"),
            sites,
            (4, 5),
        ),
        Table(f"Warnings: {len(warned)}", ("slab", "warning"), warned),
    ]
    return [table for table in tables if table.rows]


def problems(row: Row) -> tuple[str, ...]:
    """Return what is wrong with a site: its status, anomalies and flags."""
    listed = [name.strip() for name in row.get("anomalies", "").split(",")]
    flags = [name for name in FLAGS if row.get(name, "").lower() in ("true", "1")]
    named = [row.get("status", ""), *listed, *flags]
    return tuple(dict.fromkeys(name for name in named if name not in HARMLESS))


def _site_row(row: Row) -> tuple[str, ...]:
    return (
        row["slab"],
        " ".join(filter(None, (row.get("adsorbate"), row.get("site")))),
        row.get("final_site", "") or "–",
        ", ".join(problems(row)).replace("_", " "),
        _fixed(row, "height_A"),
        _fixed(row, "fmax_eV_per_A"),
        row.get("error", ""),
    )


def glossary(view: ReportView) -> list[tuple[str, str]]:
    """Return how often each anomaly occurs, and what it means."""
    counts = Counter(what for row in view.screening.sites for what in problems(row))
    return [
        (f"{what.replace('_', ' ')} ({count})", MEANINGS.get(what, ""))
        for what, count in counts.most_common()
    ]


def _fixed(row: Row, column: str) -> str:
    value = number(row, column)
    return "–" if value is None else f"{value:.2f}"


LEFT_OUT = ("ranking",)
"""Shown elsewhere on the page."""
FIRST = ("model", "settings", "input", "pt111", "counts", "versions")


def provenance(view: ReportView) -> list[Table]:
    """Return everything that summary.json says besides its table."""
    summary = view.screening.summary
    names = [name for name in FIRST if name in summary]
    names += [name for name in summary if name not in (*names, *LEFT_OUT)]
    parts = {name: summary[name] for name in names}
    grouped = {name: part for name, part in parts.items() if isinstance(part, Mapping)}
    single = {name: part for name, part in parts.items() if name not in grouped}
    if single:
        grouped["run"] = single
    if view.ranking is not None:
        grouped["uncertainty"] = {
            key: view.ranking.get(key)
            for key in ("settings", "calibrated_with", "rescored_with", "committee")
        }
    return [
        Table(name.replace("_", " "), ("", ""), list(_flat(part)))
        for name, part in grouped.items()
    ]


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as one line each; what is empty is left out."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, f"{prefix} · {key}" if prefix else str(key))
    elif content not in (None, "", [], ()):
        if isinstance(content, list | tuple):
            content = ", ".join(map(str, content))
        yield prefix, f"{content:.7g}" if isinstance(content, float) else str(content)
