"""``crack-md train``: distil a student as a recipe says."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from crack_md.cli.common import hush


def train(
    config: Annotated[
        Path,
        typer.Argument(help="Training recipe, a YAML file such as configs/tiny.yaml."),
    ],
    *,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting, e.g. --set optimizer.lr=1e-4; may be repeated.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option(help="Print nothing but errors.", callback=hush)
    ] = False,
) -> None:
    """Distil a student as a recipe says. The same command continues a stopped run."""
    from crack_md.api.runs import train as run

    summary = run(config, overrides or [], quiet=quiet)
    if summary.stopped_by is not None:
        typer.echo(
            f"stopped by {summary.stopped_by} at step {summary.step}; "
            "the same command continues from there",
            err=True,
        )
        raise typer.Exit(128 + signal.Signals[summary.stopped_by].value)


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(train)
