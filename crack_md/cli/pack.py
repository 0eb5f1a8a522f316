"""``crack-md pack``: a labelled set small enough to be committed."""

from pathlib import Path
from typing import Annotated

import typer


def pack(
    data: Annotated[
        Path, typer.Argument(help="Labelled dataset (aselmdb, db, extxyz).")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the packed set.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the set in the folder.")
    ] = False,
) -> None:
    """Write a labelled set without features, compressed, in files below 10 MB.

    Positions are rounded to 1e-5 Å, forces to 1e-4 eV/Å; energies stay exact. Every
    command that takes a dataset takes the folder. Features come back with: crack-md
    label FOLDER --only-features --teacher TEACHER --out FILE.
    """
    from crack_md.data.packed.files import pack_dataset

    counts = pack_dataset(data, out, overwrite=overwrite)
    typer.echo(
        f"{counts.structures} structures in {out}: {counts.n_bytes / 1e6:.1f} MB"
    )
    if counts.left_out:
        typer.echo(f"left out: {', '.join(counts.left_out)}")


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(pack)
