"""A ranking as a table for people, and what it rests on in a few lines."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from crack_md.workflows.calibration import Calibration
from crack_md.workflows.ranking_files import CSV_NAME, JSON_NAME
from crack_md.workflows.ranking_records import RankedSlab, Ranking
from crack_md.workflows.rescore import Rescored
from crack_md.workflows.uncertainty import percent

SHOWN = 30


def print_ranking(ranking: Ranking, rescored: Sequence[Rescored], folder: Path) -> None:
    """Print the best slabs with their intervals and chances."""
    console = Console()
    console.print(_table(ranking))
    if len(ranking.slabs) > SHOWN:
        rest = f"... {len(ranking.slabs) - SHOWN} more in {folder / CSV_NAME}"
        console.print(Text(rest, style="dim"))
    for result in rescored:
        if not result.counts:
            line = f"{result.slab}: not re-scored: {result.status} {result.error}"
            console.print(Text(line.rstrip(), style="yellow"))
    for line in explanation(ranking):
        console.print(Text(line, style="dim"))
    console.print(Text(f"written to {folder}/: {CSV_NAME}, {JSON_NAME}"))


def explanation(ranking: Ranking) -> list[str]:
    """Return in words where energies, intervals and chances come from."""
    settings, lines = ranking.settings, []
    others = sorted({row.source for row in ranking.slabs} - {"model", "DFT"})
    lines += [f"* by {name}" for name in others]
    if any(row.source == "DFT" for row in ranking.slabs):
        lines.append("† by DFT")
    if ranking.between_models is not None:
        lines.append("other slabs on the scale of the re-scoring model: ")
        lines[-1] += _correction(ranking.between_models)
    if ranking.correction is not None:
        lines.append(f"corrected by DFT: {_correction(ranking.correction)}")
    else:
        assumed = settings.assumed
        lines.append(
            f"errors are assumed: {assumed.independent_eV:.2f} eV for each slab and "
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
    if found.kind == "none":
        law = "none, errors measured"
    elif found.kind == "offset":
        law = f"E = x {found.offset:+.3f} eV"
    else:
        law = f"E = {found.slope:.3f} x {found.offset:+.3f} eV"
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


def _table(ranking: Ranking) -> Table:
    """Return the table, narrow enough for a terminal of 80 columns."""
    name, settings = ranking.adsorbate, ranking.settings
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("slab")
    for title in (
        f"ΔG({name}*) / eV",
        "U_L / V",
        percent(settings.level),
        "P(best)",
        f"P(top {settings.top})",
        "ranks",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    for row in ranking.slabs[:SHOWN]:
        mark = {"model": "", "DFT": " †"}.get(row.source, " *")
        table.add_row(str(row.rank), row.slab + mark, *_numbers(row))
    return table


def _numbers(row: RankedSlab) -> tuple[str, ...]:
    return (
        f"{row.dG_eV:.2f} ± {(row.dG_high_eV - row.dG_low_eV) / 2:.2f}",
        f"{row.U_L_V:.2f}",
        f"{row.U_L_low_V:.2f}–{row.U_L_high_V:.2f}",
        f"{row.p_best:.2f}",
        f"{row.p_top:.2f}",
        f"{row.rank_low}–{row.rank_high}",
    )
