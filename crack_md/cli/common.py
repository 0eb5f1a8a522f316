"""What the commands on single structures share: options, input, progress, endings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crack_md.errors import ConfigError, StructureError

if TYPE_CHECKING:
    from ase import Atoms

    from crack_md.workflows.model_info import ModelInfo

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


def read_structure(path: Path, index: int) -> "Atoms":
    """Return one structure of a file, checked for what no model could be asked about.

    Raises:
        ConfigError: the file has fewer structures.
        DataError: it cannot be read.
        StructureError: the structure is broken.
    """
    from crack_md.structures import read_entries
    from crack_md.workflows.surfaces.checks import check_structure

    entries = read_entries(path)
    try:
        entry = entries[index]
    except IndexError:
        raise ConfigError(
            f"--index is {index}, and '{path}' has {len(entries)} structures"
        ) from None
    if entry.atoms is None:
        raise ConfigError(f"'{path}': {entry.error}; choose another one with --index")
    check_structure(entry.atoms)
    return entry.atoms


def require_known_elements(atoms: "Atoms", info: "ModelInfo") -> None:
    """Refuse elements that the model was not trained on, before a file is made.

    Raises:
        StructureError: the structure has some.
    """
    if refusal := info.refusal(atoms.symbols):
        raise StructureError(refusal)


@contextmanager
def going_on_later(out: Path) -> Iterator[None]:
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
