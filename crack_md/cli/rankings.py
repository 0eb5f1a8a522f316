"""Rankings as tables in the terminal, with the warnings and assumptions behind them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from crack_md.cli.common import Heading, build_table, explain_left_out
from crack_md.workflows.orr import INTERMEDIATES, REFERENCES
from crack_md.workflows.ranking.calibration import Calibration
from crack_md.workflows.ranking.errors import percent
from crack_md.workflows.ranking.results import (
    CSV_NAME,
    JSON_NAME,
    RankedSlab,
    Ranking,
    Rescored,
)
from crack_md.workflows.screening.reader import CAUSES, coverage_columns, water_in_words
from crack_md.workflows.screening.tables import energy_column

MEASURE = re.compile(r"-?\d+\.\d+(?= (?:V|eV|Å²?)\b)")
SHOWN_NAMES = 8
SCALES = {"H2O_H2": "H2O and H2", "halfO2": "½O2"}


def print_screening(summary: Mapping[str, Any], out: Path) -> None:
    """Print the ranked slabs, then what is wrong with the others, then the terms."""
    settings = summary["settings"]
    scale = REFERENCES[settings["reference"]].column
    console = Console()
    table, left_out = _screening_table(
        summary["ranking"], settings, scale, console.width
    )
    if table.row_count:
        console.print(table)
        if missing := explain_left_out(left_out, "results.csv"):
            console.print(missing)
    for row in summary["ranking"]:
        if "rank" not in row:
            line = f"{row['slab']}: {row['status']}: {row.get('error', '')}"
            console.print(Text(line, style="yellow"))
    for warning in (
        *_shared(summary["ranking"], "warnings"),
        *_shared(summary["ranking"], "coverage_notes"),
    ):
        console.print(Text(f"note: {warning}", style="yellow"))
    for line in _terms(summary, SCALES[scale]):
        console.print(Text(line, style="dim"))
    console.print(Text(f"written to {out}/: report.html, results.csv, volcano.png ..."))


def _terms(summary: Mapping[str, Any], scale: str) -> list[str]:
    """Return what energies and potentials rest on, one line each."""
    settings, pt111 = summary["settings"], summary["pt111"]
    by_scaling = [n for n in INTERMEDIATES if n not in settings["adsorbates"]]
    names = " and ".join(f"{name}*" for name in by_scaling)
    inferred = f" ({names} ± {settings['scaling_error_eV']:.1f} eV)" if names else ""
    lines = [
        f"ΔE against {scale}; U_L by scaling {settings['scaling']}{inferred} with "
        f"corrections {settings['corrections']}; Pt(111): {pt111['source']}",
        f"water: {water_in_words(settings)}",
        "± c, s, m: half of the range of U_L by constants, scaling, error of the model",
    ]
    if "stability" in settings:
        lines.append(
            "E_f against bulk elements; up: swap with the layer beneath, negative "
            "where the element rises to the surface; dissolves: where an atom of the "
            f"terrace leaves, by {settings['stability']}"
        )
    if "coverages_ML" in settings:
        lines.append(
            "ΔE at a coverage: mean of O* on the hollows that are farthest apart; "
            "pair: total minus O* alone, for each pair of O* nearer than "
            f"{settings['neighbors_nearer_than_A']:g} Å, positive where they repel; "
            "see coverage.csv"
        )
    if pt111.get("published_U_L_V") is not None and pt111.get("U_L_V") is not None:
        lines.append(
            f"Pt(111) has U_L {pt111['U_L_V']:.2f} V by this model, "
            f"{pt111['published_U_L_V']:.2f} V as published with these constants"
        )
    return lines


def _screening_table(
    ranking: list[dict[str, Any]], settings: dict[str, Any], scale: str, width: int
) -> tuple[Table, list[str]]:
    """Return the table of the ranked slabs, and which columns had no room."""
    first, *others = settings["adsorbates"]
    headings = {
        "rank": Heading("rank"),
        "slab": Heading("slab", is_text=True),
        "final_site": Heading("site", is_text=True),
    }
    # stability was asked for: where room is short, it stays and energies go
    with_stability = "stability" in settings
    for name in (first, *others):
        is_other = name != first
        energy = energy_column(name, scale=scale)
        headings[energy] = Heading(f"ΔE({name}*) / eV", drop=7 if is_other else 6)
        drop = int(is_other) + 4 * with_stability
        headings[f"dG_{name}_eV"] = Heading(f"ΔG({name}*) / eV", drop=drop)
    headings |= {
        "U_L_V": Heading("U_L / V"),
        "U_L_by": Heading("± c, s, m / V", drop=9),
        f"dE_{first}_vs_Pt111_eV": Heading("vs Pt(111) / eV", drop=8),
    }
    if with_stability:
        headings |= {
            "formation_eV_per_atom": Heading("E_f / eV per atom", drop=3),
            "segregation": Heading(f"up (with {first}*) / eV", is_text=True, drop=2),
            "dissolution": Heading("dissolves / V", is_text=True, drop=1),
        }
    for coverage in settings.get("coverages_ML", ()):  # asked for as well
        names = coverage_columns(coverage)
        headings[names.mean] = Heading(f"ΔE at {coverage:g} ML / eV", drop=5)
        if any(names.lateral in row for row in ranking):  # none of one O* alone
            headings[names.lateral] = Heading(f"pair at {coverage:g} ML / eV", drop=5)
    rows = [
        [_cell(row.get(column)) for column in headings]
        for row in (each | _in_words(each, first) for each in ranking)
        if "rank" in row
    ]
    return build_table(list(headings.values()), rows, width=width)


def _in_words(row: Mapping[str, Any], adsorbate: str) -> dict[str, str | None]:
    """Return the cells that hold more than one number."""
    words: dict[str, str | None] = {"U_L_by": _causes(row)}
    if "segregation_eV" in row:
        covered = row.get(f"segregation_with_{adsorbate}_eV")
        shown = "" if covered is None else f" ({covered:+.2f})"
        rise = f"{row['segregation_element']} {row['segregation_eV']:+.2f}"
        words["segregation"] = rise + shown
    if "dissolution_V" in row:
        mark = " < U_L" if row.get("dissolves_below_U_L") else ""
        leaves = f"{row['dissolution_element']} {row['dissolution_V']:+.2f}"
        words["dissolution"] = leaves + mark
    return words


def _causes(row: Mapping[str, Any]) -> str | None:
    """Return the errors of U_L by their causes; None for a slab without U_L."""
    halves = [row.get(f"U_L_by_{cause}_V") for cause in CAUSES]
    return ", ".join(f"{h:.2f}" for h in halves if h is not None) or None


def _shared(ranking: list[dict[str, Any]], column: str) -> list[str]:
    """Return every warning of a column once, with the slabs that it is about.

    Those that differ in a number alone are one, without the number; results.csv has it.
    """
    alike: dict[str, dict[str, list[str]]] = {}
    for row in ranking:
        for warning in filter(None, row.get(column, "").split("; ")):
            slabs = alike.setdefault(MEASURE.sub("…", warning), {})
            slabs.setdefault(warning, []).append(row["slab"])
    return [
        f"{text if len(slabs) > 1 else next(iter(slabs))} ({_few(slabs.values())})"
        for text, slabs in alike.items()
    ]


def _few(groups: Iterable[list[str]]) -> str:
    names = list(dict.fromkeys(name for group in groups for name in group))
    more = f" and {len(names) - SHOWN_NAMES} more" if names[SHOWN_NAMES:] else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


SHOWN = 30


def print_ranking(ranking: Ranking, rescored: Sequence[Rescored], folder: Path) -> None:
    """Print the best slabs with their intervals and chances."""
    console = Console()
    table, left_out = _table(ranking, console.width)
    console.print(table)
    if missing := explain_left_out(left_out, CSV_NAME):
        console.print(missing)
    if len(ranking.slabs) > SHOWN:
        rest = f"... {len(ranking.slabs) - SHOWN} more in {folder / CSV_NAME}"
        console.print(Text(rest, style="dim"))
    for result in rescored:
        if not result.is_usable:
            line = f"{result.slab}: not re-scored: {result.status} {result.error}"
            console.print(Text(line.rstrip(), style="yellow"))
    for line in explanation(ranking):
        console.print(Text(line, style="dim"))
    console.print(Text(f"written to {folder}/: {CSV_NAME}, {JSON_NAME}"))


def explanation(ranking: Ranking) -> list[str]:
    """Return in words where energies, intervals and chances come from."""
    settings, lines = ranking.settings, []
    sources = {energy.source for row in ranking.slabs for energy in row.energies}
    lines += [f"* by {name}" for name in sorted(sources - {"model", "DFT"})]
    lines += ["† by DFT"] if "DFT" in sources else []
    for name, found in ranking.between_models.items():
        law = _correction(found)
        lines.append(f"{name}* elsewhere on the scale of the re-scoring model: {law}")
    for name, found in ranking.corrections.items():
        lines.append(f"{name}* corrected by DFT: {_correction(found)}")
    bare = [name for name in ranking.adsorbates if name not in ranking.corrections]
    if bare:
        assumed = settings.assumed
        lines.append(
            f"errors of {' and '.join(f'{name}*' for name in bare)} are assumed: "
            f"{assumed.independent_text} for each slab and "
            f"{assumed.shared_eV:.2f} eV common to all"
            + (", and the spread of the committee" if ranking.has_committee else "")
            + "; --calibrate measures them"
        )
    lines.append(
        f"intervals: {percent(settings.level)}; ranks: {percent(ranking.rank_level)} "
        f"of {settings.draws:,} draws, seed {settings.seed}"
    )
    best = "best slab" if settings.top == 1 else f"best {settings.top}"
    lines.append(
        f"to have the {best} with {percent(ranking.rank_level)} probability, look at "
        f"{len(ranking.shortlist)} of {len(ranking.slabs)}"
    )
    return lines


def _correction(found: Calibration) -> str:
    """Return a correction with what leaving one value out says about it."""
    offset = f"{'-' if found.offset < 0 else '+'} {abs(found.offset):.3f}"
    if found.kind == "none":
        law = "none, errors measured"
    elif found.kind == "offset":
        law = f"E = x {offset} eV"
    else:
        law = f"E = {found.slope:.3f} x {offset} eV"
    text = f"{law}, from {found.n} value{'s' if found.n > 1 else ''}"
    if found.left_out is None:
        return text + "; too few to check it, the scatter is assumed"
    checked = found.left_out
    text += (
        f"; leaving one out, RMS error {checked.rmse_eV:.3f} eV "
        f"(uncorrected {found.rmse_before_eV:.3f})"
    )
    if checked.n_inside is not None:
        text += f", {checked.n_inside} of {found.n} inside their intervals"
    if found.kind != "none" and checked.rmse_eV > found.rmse_before_eV:
        text += "; THE CORRECTION DOES NOT HELP, try --correction offset or none"
    return text


def _table(ranking: Ranking, width: int) -> tuple[Table, list[str]]:
    """Return the table as wide as the terminal, and which columns had no room.

    Of several adsorbates only the first is shown; ranking.csv has all.
    """
    settings, first = ranking.settings, ranking.adsorbates[0]
    headings = [
        Heading("rank"),
        Heading("slab", is_text=True),
        Heading(f"ΔG({first}*) / eV", drop=2),
        Heading("U_L / V"),
        Heading(percent(settings.level)),
        Heading("P(best)", drop=1),
        Heading(f"P(top {settings.top})"),
        Heading("ranks", drop=3),
    ]
    rows = []
    for row in ranking.slabs[:SHOWN]:
        sources = dict.fromkeys(energy.source for energy in row.energies)
        marks = "".join(
            {"model": "", "DFT": " †"}.get(source, " *") for source in sources
        )
        energy = _free_energy(row, first)
        rows.append([str(row.rank), row.slab + marks, energy, *_numbers(row)])
    return build_table(headings, rows, width=width)


def _free_energy(row: RankedSlab, adsorbate: str) -> str:
    found = next((e for e in row.energies if e.adsorbate == adsorbate), None)
    if found is None:
        return "-"
    return f"{found.dG_eV:.2f} ± {(found.dG_high_eV - found.dG_low_eV) / 2:.2f}"


def _numbers(row: RankedSlab) -> tuple[str, ...]:
    return (
        f"{row.U_L_V:.2f}",
        f"{row.U_L_low_V:.2f} to {row.U_L_high_V:.2f}",  # ends may be negative
        f"{row.p_best:.2f}",
        f"{row.p_top:.2f}",
        f"{row.rank_low}–{row.rank_high}",
    )
