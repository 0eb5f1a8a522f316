"""What ``crack-md sample`` prints."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

COLORS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}
METRICS = {"wasserstein_1": "W₁", "jensen_shannon": "JS", "rmse_F": "RMSE F"}


def print_record(record: dict[str, Any], out: Path) -> None:
    """Print temperatures, energies, distances and the verdict with its reasons."""
    console = Console()
    for line in _doubts_about_reference(record):
        console.print(Text(line, style="dim"))
    console.print(_energies(record))
    if record["metrics"]:
        console.print(_metrics(record))
    chains = record["chains"]
    if chains is not None:
        spurious = _number(record["spurious"]["fraction"])
        console.print(
            Text(
                f"survival {chains['survival']:.2f}, {chains['n_blow_ups']} blow-ups; "
                f"{spurious} of the frames are spurious; "
                f"kinetic temperature {_temperature(chains, 'kinetic_temperature')}"
            )
        )
    verdict = record["verdict"]
    console.print(Text(verdict, style=f"bold {COLORS[verdict]}"))
    for kind, style in (("failures", "red"), ("doubts", "yellow")):
        for line in record[kind]:
            console.print(Text(f"  {line}", style=style))
    console.print(Text(f"written to {out}/: sampling.json, report.html ..."))


def _doubts_about_reference(record: dict[str, Any]) -> tuple[str, ...]:
    reference, model = record["reference"], record["model"]
    what = "its second half" if model is None else str(model["name"])
    return (
        f"{reference['n_frames']} frames of {reference['formula']}, {what} beside them",
        f"temperature {reference['temperature_K']:.1f} K "
        f"({reference['temperature_source'] or 'as given'}); the frames show "
        f"{_temperature(reference, 'virial_temperature')} (virial), "
        f"{_temperature(reference, 'bond_temperature')} (bonds)",
    )


def _energies(record: dict[str, Any]) -> Table:
    table = _table("energy / eV", "mean", "σ", "lowest", "highest")
    for row in record["energies"]:
        values = (row.get(f"{name}_eV") for name in ("mean", "std", "min", "max"))
        table.add_row(row["what"], *("" if v is None else f"{v:.3f}" for v in values))
    return table


def _metrics(record: dict[str, Any]) -> Table:
    table = _table("distance", "metric", "value", "noise floor", "ratio")
    limit = record["limits"]["metric_over_noise_floor"]
    for row in record["metrics"]:
        ratio = row["ratio"]
        is_good = ratio is not None and ratio <= limit
        table.add_row(
            row["observable"],
            METRICS[row["metric"]],
            f"{_number(row['value'])} {row['unit']}",
            _number(row["noise_floor"]),
            Text(
                "-" if ratio is None else f"{ratio:.2f}",
                style="" if is_good else "yellow",
            ),
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(first)
    for title in others:
        table.add_column(title, justify="right")
    return table


def _temperature(values: dict[str, Any], name: str) -> str:
    value, error = values[f"{name}_K"], values[f"{name}_error_K"]
    if value is None:
        return "unknown"
    return f"{value:.0f} K" if error is None else f"{value:.0f} ± {error:.0f} K"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
