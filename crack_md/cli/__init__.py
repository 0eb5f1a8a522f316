"""The command line: builds objects from options and holds no science.

Every error that bad input can cause ends as one line on stderr and exit code 2. Other
exceptions are bugs and keep their traceback.
"""

import inspect
import sys
from typing import Annotated

import typer

from crack_md.cli import (
    bench,
    data,
    md,
    models,
    phonons,
    rank,
    relax,
    sample,
    screen,
    training,
)
from crack_md.cli.common import show_messages
from crack_md.errors import CrackError
from crack_md.files import is_full_disk

BAD_INPUT = 2
INTERRUPTED = 130

app = typer.Typer(
    name="crack-md",
    help="Distil a large force field into a small one, and put it to work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
GROUPS = (screen, rank, relax, md, phonons, training, data, models, bench, sample)
for group in GROUPS:
    group.register(app)


def _join_lines(text: str) -> str:
    """Return a docstring with its paragraphs on one line each, to be wrapped anew."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


for command in app.registered_commands:
    command.help = _join_lines((command.callback and command.callback.__doc__) or "")


def _print_version(wanted: bool) -> None:
    if wanted:
        from crack_md import __version__

        typer.echo(f"crack-md {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and stop.",
        ),
    ] = False,
) -> None:
    """Options before the command."""
    show_messages()


def main() -> None:
    """Run the command line."""
    try:
        app()
    except CrackError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(BAD_INPUT)
    except Exception as error:
        if not is_full_disk(error):
            raise
        typer.echo(
            f"error: {error}; free some space and repeat the command, which goes on "
            "where it stopped",
            err=True,
        )
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
