"""The command that writes a model for other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from crack_md.errors import ConfigError


def export(
    model: Annotated[
        str, typer.Argument(help="Model file, or 'default' for the packaged student.")
    ],
    *,
    to: Annotated[
        Literal["metatomic"], typer.Option("--format", help="Which programs it is for.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write. Default: MODEL-FORMAT.pt, in this folder."
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float64"], typer.Option(help="Precision of the network.")
    ] = "float32",
) -> None:
    """Write a model as one file that other programs run without crack-md.

    metatomic: for its ASE calculator, its torch-sim model and i-PI, among others. The
    file is compared with the model before it is written.
    """
    target = out or Path(f"{Path(model).stem}-{to}.pt")
    if not target.parent.is_dir():
        raise ConfigError(
            f"no folder '{target.parent}'; make it, or give another --out"
        )
    if Path(model).is_file() and target.exists() and target.samefile(model):
        raise ConfigError(f"'{target}' is the model to export; give another --out")
    from crack_md.calculators import metatomic

    difference = metatomic.export(model, target, dtype=dtype)
    typer.echo(
        f"written to {target}: {dtype}, within {difference:.0e} of the model's "
        "energies, forces and stresses in metatomic's ASE calculator on a CPU; the "
        "warnings of crack-md about structures unlike the training data are not in it"
    )


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(export)
