"""``crack-md surfaces``: slabs of alloys, ready for ``crack-md screen``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from crack_md.cli.common import (
    FAILED,
    Device,
    Heading,
    Model,
    build_table,
    explain_left_out,
    number,
)
from crack_md.progress import show_events

if TYPE_CHECKING:
    from crack_md.structures import StructureEntry


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("surfaces")(surfaces)


def surfaces(
    bulks: Annotated[
        Path | None,
        typer.Argument(
            help="Further bulk crystals: a file or folder. Sites that a CIF file has "
            "occupied in part are drawn."
        ),
    ] = None,
    *,
    elements: Annotated[
        str, typer.Option(help="Metals, separated by commas: Pt,Ni,Co.")
    ] = "",
    structures: Annotated[
        str,
        typer.Option(
            help="pure, L12 (A3B), L10 (AB), random (all elements on one lattice), "
            "skin (A3B under a layer of A)."
        ),
    ] = "L12,L10,random,skin",
    compositions: Annotated[
        str,
        typer.Option(
            help="Of random alloys: Pt3Ni,Pt50Ni30Co20. Default: equal parts."
        ),
    ] = "",
    miller: Annotated[str, typer.Option(help="Planes to cut along: 111,100.")] = "111",
    out: Annotated[Path, typer.Option(help="ASE database to write.")] = Path(
        "surfaces.db"
    ),
    model: Model = "default",
    random_slabs: Annotated[
        int,
        typer.Option(
            "--random-slabs",
            min=1,
            help="Slabs of every random alloy, seeds ascending.",
        ),
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random alloys.")] = 0,
    terminations: Annotated[
        bool, typer.Option("--terminations", help="Cut every distinct termination.")
    ] = False,
    thickness_A: Annotated[
        float, typer.Option("--thickness", min=1.0, help="Least thickness, Å.")
    ] = 6.0,
    vacuum_A: Annotated[
        float, typer.Option("--vacuum", min=6.0, help="Vacuum above slabs, Å.")
    ] = 15.0,
    width_A: Annotated[
        float | None,
        typer.Option(
            "--width",
            min=1.0,
            help="Least lateral width, Å. Default: 4.9, and 7.3 for random alloys.",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Make slabs of alloys at the lattice constant of the model, to be screened.

    Every bulk starts at Vegard's mean and relaxes with the model; slabs are cut from
    it and written with names and what they are: crack-md screen surfaces.db ranks them.
    Exit code 1: no slab could be made; 2: unusable input.
    """
    from crack_md.api.inputs import load_potential
    from crack_md.api.surfaces import choose_crystals, make_surfaces
    from crack_md.workflows.surfaces.build import check_target
    from crack_md.workflows.surfaces.cut import parse_planes

    # Everything that can be wrong with the input is found before a model is loaded.
    parse_planes(miller)
    check_target(out)
    choose_crystals(elements, structures, compositions, bulks)
    calculator, info = load_potential(model, device=device)
    with show_events() as report:
        made = make_surfaces(
            calculator,
            elements=elements,
            structures=structures,
            compositions=compositions,
            bulks=bulks,
            miller=miller,
            out=out,
            model=info,
            report=report,
            random_slabs=random_slabs,
            seed=seed,
            all_terminations=terminations,
            thickness_A=thickness_A,
            vacuum_A=vacuum_A,
            width_A=width_A,
        )
    _print(made.entries, out)
    if len(made.failed) == len(made.entries):
        raise typer.Exit(FAILED)


def _print(entries: "tuple[StructureEntry, ...]", out: Path) -> None:
    headings = [
        Heading("slab", is_text=True),
        Heading("formula", is_text=True),
        Heading("structure", is_text=True, drop=1),
        Heading("a / Å"),
    ]
    made = [entry for entry in entries if entry.atoms is not None]
    drawn = any("seed" in entry.columns for entry in made)
    headings += [Heading("seed", drop=2)] * drawn
    rows = [
        [
            entry.name,
            entry.atoms.get_chemical_formula(mode="metal") if entry.atoms else "-",
            entry.columns["structure"],
            number(entry.columns["lattice_constant_A"], ".3f"),
            *[number(entry.columns.get("seed"), "d")] * drawn,
        ]
        for entry in made
    ]
    console = Console()
    table, left_out = build_table(headings, rows, width=console.width)
    if rows:
        console.print(table)
    if missing := explain_left_out(left_out, str(out)):
        console.print(missing)
    for entry in entries:
        if entry.atoms is None:
            line = f"{entry.name}: {entry.status}: {entry.error}"
            console.print(Text(line, style="yellow"))
    if made:
        console.print(
            Text(f"{len(made)} slabs written to {out}: crack-md screen {out}")
        )
