"""The ranking of ``crack-md screen`` as a table, and the warnings behind it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from crack_md.cli.tables import Heading, build_table, explain_left_out
from crack_md.workflows.orr.constants import REFERENCES
from crack_md.workflows.screening.writer import energy_column

SCALES = {"H2O_H2": "H2O and H2", "halfO2": "½O2"}


def print_ranking(summary: Mapping[str, Any], out: Path) -> None:
    """Print the ranked slabs, then what is wrong with the others, then the terms."""
    settings = summary["settings"]
    scale = REFERENCES[settings["reference"]].column
    console = Console()
    table, left_out = _table(summary["ranking"], settings, scale, console.width)
    if table.row_count:
        console.print(table)
        if missing := explain_left_out(left_out, "results.csv"):
            console.print(missing)
    for row in summary["ranking"]:
        if "rank" not in row:
            line = f"{row['slab']}: {row['status']}: {row.get('error', '')}"
            console.print(Text(line, style="yellow"))
    for warning in _shared_warnings(summary["ranking"]):
        console.print(Text(f"note: {warning}", style="yellow"))
    reference = summary["pt111"]["source"]
    console.print(
        Text(
            f"ΔE against {SCALES[scale]}; U_L by scaling {settings['scaling']} with "
            f"corrections {settings['corrections']}; Pt(111): {reference}",
            style="dim",
        )
    )
    console.print(Text(f"written to {out}/: report.html, results.csv, volcano.png ..."))


def _table(
    ranking: list[dict[str, Any]], settings: dict[str, Any], scale: str, width: int
) -> tuple[Table, list[str]]:
    """Return the table of the ranked slabs, and which columns had no room."""
    first, *others = settings["adsorbates"]
    headings = {
        "rank": Heading("rank"),
        "slab": Heading("slab", is_text=True),
        "final_site": Heading("site", is_text=True),
    }
    for name in (first, *others):
        is_other = name != first
        energy = energy_column(name, scale=scale)
        headings[energy] = Heading(f"ΔE({name}*) / eV", drop=3 if is_other else 2)
        headings[f"dG_{name}_eV"] = Heading(f"ΔG({name}*) / eV", drop=int(is_other))
    headings |= {
        "U_L_V": Heading("U_L / V"),
        f"dE_{first}_vs_Pt111_eV": Heading("vs Pt(111) / eV", drop=4),
    }
    rows = [
        [_cell(row.get(column)) for column in headings]
        for row in ranking
        if "rank" in row
    ]
    return build_table(list(headings.values()), rows, width=width)


def _shared_warnings(ranking: list[dict[str, Any]]) -> list[str]:
    """Return every warning once, with the slabs that it is about."""
    slabs: dict[str, list[str]] = {}
    for row in ranking:
        for warning in filter(None, row.get("warnings", "").split("; ")):
            slabs.setdefault(warning, []).append(row["slab"])
    return [f"{warning} ({_few(names)})" for warning, names in slabs.items()]


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
