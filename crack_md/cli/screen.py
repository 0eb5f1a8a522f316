"""The command about surfaces: ``crack-md screen``."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crack_md.errors import ConfigError
from crack_md.progress import build_progress

ALL_FAILED = 1
INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("screen")(screen)


def screen(
    surfaces: Annotated[
        Path,
        typer.Argument(
            help="Slabs to screen: an ASE database, extxyz, traj, cif, POSCAR ..."
        ),
    ],
    *,
    model: Annotated[
        str,
        typer.Option(
            help="'default' (the packaged student), a model file, or 'emt' (ASE's toy "
            "potential, for trying things out)."
        ),
    ] = "default",
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for results. Run again with the same one to go on where a "
            "stopped run ended."
        ),
    ] = Path("screen-results"),
    adsorbate: Annotated[str, typer.Option(help="What adsorbs.")] = "O",
    fmax: Annotated[
        float, typer.Option(min=1e-6, help="Relax until no force exceeds this, eV/Å.")
    ] = 0.03,
    steps: Annotated[
        int, typer.Option(min=1, help="Most steps of one relaxation.")
    ] = 300,
    gas_reference: Annotated[
        str | None,
        typer.Option(
            help="Energies of the gas molecules by the same model in eV, such as "
            "H2O=-12.81,H2=-6.98. Default: those stored in the model."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="'cpu', 'cuda', or 'auto' for a GPU where there is one.")
    ] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")
    ] = False,
) -> None:
    """Rank surfaces for oxygen reduction by their O* adsorption energy.

    Relaxes every slab, clean and with O on each symmetry-distinct site, and writes
    results.csv (one row per slab, best first), sites.csv, results.db (relaxed
    structures), summary.json and volcano.png. A slab that cannot be screened becomes a
    row that says why. Exit code 1: no slab has a result; 2: unusable input.
    """
    from crack_md.cli.potentials import load_potential
    from crack_md.workflows.adsorption import adsorbate_named, gas_energy
    from crack_md.workflows.inputs import read_entries
    from crack_md.workflows.results import ScreenSettings

    # Everything that can be wrong with the input is found before a file is made.
    settings = ScreenSettings(adsorbate=adsorbate, fmax=fmax, steps=steps)
    species = adsorbate_named(adsorbate)
    given_gases = _gas_energies(gas_reference)
    entries = read_entries(surfaces)
    calculator, info = load_potential(model, device=device, gas_energies=given_gases)
    if info.energy_reference == "total":
        gas_energy(species, info.gas_references)
    try:
        summary = _screen_into(out, surfaces, entries, calculator, info, settings)
    except KeyboardInterrupt:
        typer.echo(
            f"stopped; what is finished is kept in '{out}': run the same command "
            "again to go on",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        _print_ranking(summary, out)
    if not summary["counts"]["slabs"].get("ok"):
        raise typer.Exit(ALL_FAILED)


def _screen_into(
    out: Path,
    surfaces: Path,
    entries: Any,
    calculator: Any,
    info: Any,
    settings: Any,
) -> dict[str, Any]:
    """Run the screening, write its files, and return the summary."""
    from crack_md.plots.volcano import volcano_png
    from crack_md.workflows.inputs import input_sha256
    from crack_md.workflows.screen import screen as run_screen
    from crack_md.workflows.store import open_store
    from crack_md.workflows.tables import write_atomically, write_tables

    start = time.monotonic()
    with open_store(out, settings.conditions(info)) as store, _bar() as report:
        result = run_screen(
            entries,
            calculator,
            model=info,
            store=store,
            settings=settings,
            report=report,
        )
        write_atomically(out / "volcano.png", volcano_png(result))
        return write_tables(
            result,
            out,
            input={
                "path": str(surfaces),
                "sha256": input_sha256(surfaces),
                "structures": len(entries),
            },
            seconds=round(time.monotonic() - start, 1),
        )


@contextmanager
def _bar() -> Iterator[Any]:
    """Give a function that shows progress on stderr, with the time that is left."""
    with build_progress("items", transient=True) as bar:
        task = bar.add_task("preparing", total=None)

        def show(step: Any) -> None:
            where = f"{step.slab} {step.site or 'clean'}"
            bar.update(
                task, completed=step.done, total=step.total, description=where[:32]
            )

        yield show


def _gas_energies(text: str | None) -> dict[str, float] | None:
    """Return {"H2O": ..., "H2": ...} from ``H2O=-12.81,H2=-6.98``."""
    if text is None:
        return None
    try:
        pairs = [part.split("=") for part in text.split(",") if part.strip()]
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError as error:
        raise ConfigError(
            f"cannot read --gas-reference '{text}'; expected energies in eV such as "
            "H2O=-12.81,H2=-6.98"
        ) from error


def _print_ranking(summary: dict[str, Any], out: Path) -> None:
    name = summary["settings"]["adsorbate"]
    energy = f"dE_{name}_H2O_H2_eV"
    shown = {
        "rank": "rank",
        "slab": "slab",
        "final_site": "site",
        energy: f"ΔE({name}*) / eV",
        f"dG_{name}_eV": f"ΔG({name}*) / eV",
        "U_L_V": "U_L / V",
        f"dE_{name}_vs_Pt111_eV": "vs Pt(111) / eV",
    }
    console = Console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column, title in shown.items():
        table.add_column(
            title, justify="left" if column in ("slab", "final_site") else "right"
        )
    for row in summary["ranking"]:
        if "rank" in row:
            table.add_row(*(_cell(row.get(column)) for column in shown))
    if table.row_count:
        console.print(table)
    for row in summary["ranking"]:
        if "rank" not in row:
            line = f"{row['slab']}: {row['status']}: {row.get('error', '')}"
            console.print(Text(line, style="yellow"))
    settings, reference = summary["settings"], summary["pt111"]["source"]
    console.print(
        Text(
            f"ΔE against H2O and H2; U_L by scaling {settings['scaling']} with "
            f"corrections {settings['corrections']}; Pt(111): {reference}",
            style="dim",
        )
    )
    console.print(Text(f"written to {out}/: results.csv, sites.csv, volcano.png ..."))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
