"""``crack-md relax``: structures to their nearest minimum."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

from crack_md.cli.common import (
    FAILED,
    AsJson,
    Device,
    Heading,
    Model,
    Results,
    build_table,
    explain_left_out,
    number,
    print_json,
    show_run,
)


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("relax")(relax)


def relax(
    structures: Annotated[
        Path,
        typer.Argument(
            help="Structures to relax: extxyz, traj, cif, POSCAR, ASE db ..."
        ),
    ],
    *,
    model: Model = "default",
    optimizer: Annotated[
        str, typer.Option(help="One of ASE's: LBFGS, BFGS, FIRE, BFGSLineSearch ...")
    ] = "LBFGS",
    fmax: Annotated[
        float, typer.Option(min=1e-6, help="Relax until no force exceeds this, eV/Å.")
    ] = 0.03,
    steps: Annotated[
        int, typer.Option(min=1, help="Most steps of one relaxation.")
    ] = 300,
    maxstep: Annotated[
        float, typer.Option(min=1e-4, help="Longest step of an atom in Å.")
    ] = 0.1,
    cell: Annotated[
        Literal["none", "isotropic", "full", "xy"],
        typer.Option(
            help="What of the cell relaxes; needs a model with stress. xy: the plane "
            "of the surface, however it lies."
        ),
    ] = "none",
    pressure: Annotated[float, typer.Option(help="GPa on a cell that relaxes.")] = 0.0,
    symmetry: Annotated[
        bool, typer.Option("--symmetry", help="Keep the symmetry of the start.")
    ] = False,
    out: Results = Path("relax-results"),
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Relax structures with any model and any ASE optimizer.

    Writes results.csv (a row per structure), relaxed.extxyz, results.db, summary.json
    and trajectories/. A structure that cannot be relaxed becomes a row that says why.
    Exit code 1: not one structure could be relaxed; 2: unusable input.
    """
    from crack_md.api.inputs import load_potential
    from crack_md.api.runs import relax as relax_structures
    from crack_md.structures import read_entries
    from crack_md.workflows.relax.batch import RELAXED
    from crack_md.workflows.relax.relax import RelaxSettings, require_stress

    options: dict[str, Any] = {
        "optimizer": optimizer,
        "fmax": fmax,
        "steps": steps,
        "maxstep": maxstep,
        "cell": cell,
        "pressure_GPa": pressure,
        "symmetry": symmetry,
    }
    # Everything that can be wrong with the input is found before a model is loaded.
    RelaxSettings(**options)
    read_entries(structures)
    calculator, info = load_potential(model, device=device)
    require_stress(calculator, cell)
    with show_run(out) as report:
        results = relax_structures(
            structures, calculator, out=out, model=info, report=report, **options
        )
    if as_json:
        print_json(results.summary)
    else:
        _print(results.summary, out)
    if not any(results.summary["counts"].get(status) for status in RELAXED):
        raise typer.Exit(FAILED)


def _print(summary: Mapping[str, Any], out: Path) -> None:
    headings = [
        Heading("structure", is_text=True),
        Heading("formula", is_text=True, drop=3),
        Heading("status", is_text=True),
        Heading("E / eV"),
        Heading("max F / eV/Å", drop=1),
        Heading("max stress / GPa", drop=4),
        Heading("steps", drop=2),
    ]
    rows = [
        [
            row["name"],
            row["formula"] or "-",
            row["status"],
            number(row["energy_eV"], ".4f"),
            number(row["max_force_eV_per_A"], ".3f"),
            number(row["max_stress_GPa"], ".3f"),
            number(row["steps"], "d"),
        ]
        for row in summary["structures"]
    ]
    console = Console()
    table, left_out = build_table(headings, rows, width=console.width)
    console.print(table)
    if missing := explain_left_out(left_out, "results.csv"):
        console.print(missing)
    for row in summary["structures"]:
        if row["error"]:
            line = f"{row['name']}: {row['status']}: {row['error']}"
            console.print(Text(line, style="yellow"))
        if row["note"]:
            console.print(Text(f"{row['name']}: {row['note']}", style="yellow"))
    console.print(Text(f"written to {out}/: results.csv, relaxed.extxyz ..."))
