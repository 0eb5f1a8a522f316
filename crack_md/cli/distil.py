"""``crack-md distil``: train, explore, label what the student gets wrong, and again."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from crack_md.cli.common import hush
from crack_md.errors import MissingDependencyError


def distil(
    loop: Annotated[
        Path, typer.Argument(help="A YAML file such as configs/distil_tiny.yaml.")
    ],
    *,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting, e.g. --set select.budget=50; may be repeated.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option(help="Print nothing but errors.", callback=hush)
    ] = False,
) -> None:
    """Distil a student in rounds: it explores, the teacher labels its worst frames.

    Prints a table of what each round gained. The same command continues a loop that was
    stopped, at any moment.
    """
    try:
        from crack_md.training.on_policy.config import load_loop
        from crack_md.training.on_policy.rounds import run_loop
        from crack_md.training.on_policy.table import printed, rows_of
    except ImportError as error:
        raise MissingDependencyError.of(
            str(error.name), extra="train", purpose="training"
        ) from None
    from crack_md.training.on_policy.folder import LoopFolder

    def say(line: str) -> None:
        if not quiet:
            typer.echo(line, err=True)

    config = load_loop(loop, overrides or [])
    stopped_by = run_loop(config, quiet=quiet, say=say)
    if not quiet:
        typer.echo(printed(rows_of(LoopFolder(config.folder), config.rounds)))
    if stopped_by is not None:
        typer.echo(
            f"stopped by {stopped_by}; the same command continues from there", err=True
        )
        raise typer.Exit(128 + signal.Signals[stopped_by].value)


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(distil)
