"""What the commands on single structures share: options, input, progress, endings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    pass

FAILED = 1
INTERRUPTED = 130

Model = Annotated[
    str,
    typer.Option(
        help="'default' (the packaged student), a model file, or 'emt' (ASE's toy "
        "potential, for trying things out)."
    ),
]
Device = Annotated[
    str, typer.Option(help="'cpu', 'cuda', or 'auto' for a GPU where there is one.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")
]
Index = Annotated[
    int,
    typer.Option(help="Which structure of the file, from 0; -1 is the last."),
]


@contextmanager
def explain_interruption(out: Path) -> Iterator[None]:
    """Turn Ctrl-C into a line that says how to continue, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            f"stopped; what is finished is kept in '{out}': run the same command "
            "again to go on",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None


def print_facts(facts: dict[str, str], footer: str) -> None:
    """Print names and values in two columns, then one line."""
    console = Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        table.add_row(Text(name, style="dim"), Text(value))
    console.print(table)
    console.print(Text(footer))


def number(value: float | None, form: str) -> str:
    """Return a formatted number, or a dash where there is none."""
    return "-" if value is None else format(value, form)
