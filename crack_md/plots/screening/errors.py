"""Intervals and probabilities of the ranking in words, and the values behind them."""

from collections.abc import Mapping
from typing import Any

from crack_md.plots.screening.markup import Markup, join, table, tag
from crack_md.plots.screening.view import ReportView
from crack_md.workflows.ranking.errors import AssumedErrors, percent


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
