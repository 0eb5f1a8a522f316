"""The command line: builds objects from options and holds no science.

Every error that bad input can cause ends as one line on stderr and exit code 2. Other
exceptions are bugs and keep their traceback.
"""

import _thread
import inspect
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, NoReturn

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
    surfaces,
    training,
)
from crack_md.cli.common import Command, Group, show_messages
from crack_md.errors import CrackError
from crack_md.files import is_full_disk

REPEATED_AFTER_S = 0.02
BAD_INPUT = 2
INTERRUPTED = 130

app = typer.Typer(
    name="crack-md",
    help="Distil a large force field into a small one, and put it to work.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its boxes leave a third of 80 columns for the texts
    cls=Group,
)
GROUPS = (
    surfaces,
    screen,
    rank,
    relax,
    md,
    phonons,
    training,
    data,
    models,
    bench,
    sample,
)
for group in GROUPS:
    group.register(app)


def _join_lines(text: str) -> str:
    """Return a docstring with its paragraphs on one line each, to be wrapped anew."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _set_help(commands: typer.Typer) -> None:
    """Give commands, and those of groups of them, help texts that fit the terminal."""
    for command in commands.registered_commands:
        text = (command.callback and command.callback.__doc__) or ""
        command.help = _join_lines(text)
        command.short_help = command.help.partition("\n")[0]
        command.cls = Command
    for group in commands.registered_groups:
        group.cls = Group
        if group.typer_instance is not None:
            _set_help(group.typer_instance)


_set_help(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from crack_md import __version__

        typer.echo(f"crack-md {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    *,
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
    """Options before the command; without one, print the help."""
    show_messages()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@contextmanager
def _noted_interruptions() -> Iterator[list[int]]:
    """Note every Ctrl-C, and repeat those that Python ignores.

    Compiled code, as matplotlib's, turns the KeyboardInterrupt into other errors, and
    Python drops it in finalizers.
    """
    noted: list[int] = []
    report = sys.unraisablehook

    def repeat(dropped: Any) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            again = threading.Timer(REPEATED_AFTER_S, _thread.interrupt_main)
            again.daemon = True
            again.start()
        else:
            report(dropped)

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted  # someone else's, as under nohup
        return
    signal.signal(signal.SIGINT, note)
    sys.unraisablehook = repeat
    try:
        yield noted
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> None:
    """Run the command line."""
    with _noted_interruptions() as interruptions:
        try:
            app()
        except CrackError as error:
            _end(f"error: {' '.join(str(error).split())}", BAD_INPUT)
        except KeyboardInterrupt:
            _end("interrupted", INTERRUPTED)
        except Exception as error:
            if interruptions:
                _end("interrupted", INTERRUPTED)
            if not is_full_disk(error):
                raise
            _end(
                f"error: {error}; free some space and repeat the command, which goes "
                "on where it stopped",
                BAD_INPUT,
            )


def _end(line: str, code: int) -> NoReturn:
    typer.echo(line, err=True)
    sys.exit(code)
