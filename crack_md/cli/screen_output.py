"""What ``crack-md screen`` shows: a bar while it runs, a ranking at the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from crack_md.workflows.orr.references import REFERENCES
from crack_md.workflows.screening.writer import energy_column

SCALES = {"H2O_H2": "H2O and H2", "halfO2": "½O2"}


def print_ranking(summary: Mapping[str, Any], out: Path) -> None:
    """Print the ranked slabs, then what is wrong with the others, then the terms."""
    settings = summary["settings"]
    scale = REFERENCES[settings["reference"]].column
    console = Console()
    table = _table(summary["ranking"], settings, scale)
    if table.row_count:
        console.print(table)
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
    ranking: list[dict[str, Any]], settings: dict[str, Any], scale: str
) -> Table:
    first, *others = settings["adsorbates"]
    shown = {"rank": "rank", "slab": "slab", "final_site": "site"}
    for name in (first, *others):
        shown[energy_column(name, scale=scale)] = f"ΔE({name}*) / eV"
        shown[f"dG_{name}_eV"] = f"ΔG({name}*) / eV"
    shown |= {"U_L_V": "U_L / V", f"dE_{first}_vs_Pt111_eV": "vs Pt(111) / eV"}
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column, title in shown.items():
        words = column in ("slab", "final_site")
        table.add_column(title, justify="left" if words else "right", overflow="fold")
    for row in ranking:
        if "rank" in row:
            table.add_row(*(_cell(row.get(column)) for column in shown))
    return table


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
