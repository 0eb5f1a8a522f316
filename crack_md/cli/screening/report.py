"""``crack-md report``: the results of a screening as one page."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[
        Path, typer.Argument(help="Results of crack-md screen (its --out).")
    ],
) -> None:
    """Write report.html: volcano, table, best candidates, anomalies, provenance.

    One file that opens in any browser without a network. With intervals and rank
    probabilities where crack-md rank has been run.
    """
    from crack_md.plots.screening.report import write_report

    typer.echo(f"written to {write_report(folder)}")


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(report)
