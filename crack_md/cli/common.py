"""What commands share: options, help texts, log messages, endings, tables."""

import json
import logging
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from crack_md.progress import Report, show_events

if TYPE_CHECKING:
    from ase import Atoms

    from crack_md.api.inputs import Dtype
    from crack_md.workflows.model_info import ModelInfo

PACKAGE = "crack_md"


class _Lines(logging.Handler):
    """Prints every message as a plain line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        # stderr as it is now: a progress bar puts lines above itself
        print(self.format(record), file=sys.stderr)


def show_messages() -> None:
    """Print from now on what the package logs, as how long compiling took."""
    log = logging.getLogger(PACKAGE)
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _Lines) for handler in log.handlers):
        log.addHandler(_Lines())
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str, category: type[Warning], *place: Any, **where: Any
) -> None:
    """Print a warning as one line, without the place in the code that it comes from."""
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def hush(quiet: bool) -> bool:
    """Let warnings alone pass where ``--quiet`` is given; return what was given."""
    if quiet:
        logging.getLogger(PACKAGE).setLevel(logging.WARNING)
    return quiet


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
Results = Annotated[
    Path, typer.Option(help="Folder for results; a stopped run in it goes on.")
]


def load_for(
    atoms: "Atoms",
    model: str,
    *,
    device: str,
    direct_forces: str,
    dtype: "Dtype" = "float32",
) -> "tuple[Any, ModelInfo]":
    """Return the calculator for a structure, and what it is.

    Args:
        atoms: what it must know the elements of.
        model: as in the option ``--model``.
        device: as in the option ``--device``.
        direct_forces: what they mean for the command; printed where the model has them.
        dtype: precision of a neural network.

    Raises:
        CheckpointError: the model cannot be read.
        StructureError: it does not know an element.
    """
    from crack_md.api.inputs import has_direct_forces, load_potential
    from crack_md.api.runs import require_known_elements

    calculator, info = load_potential(model, device=device, dtype=dtype)
    require_known_elements(atoms, info)
    if has_direct_forces(calculator):
        typer.echo(
            "note: the forces of this model are direct, not the gradient of its "
            f"energy: {direct_forces}",
            err=True,
        )
    return calculator, info


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


@contextmanager
def show_run(out: Path) -> Iterator[Report]:
    """Show the progress of a run that writes to a folder; Ctrl-C says how to go on."""
    with explain_interruption(out), show_events() as report:
        yield report


def print_json(record: Mapping[str, Any]) -> None:
    """Print a record as JSON for people, with letters as they are."""
    typer.echo(json.dumps(record, indent=2, ensure_ascii=False))


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


GAP = 2
"""Spaces between two columns."""
Cell = str | Text


class Heading(NamedTuple):
    """One column: its title, and whether it may be left out."""

    title: str
    is_text: bool = False
    """Words are flush left, numbers right."""
    drop: int = 0
    """Where room is short, columns of the highest number go first; 0 stays."""


def build_table(
    headings: Sequence[Heading], rows: Sequence[Sequence[Cell]], *, width: int
) -> tuple[Table, list[str]]:
    """Return a table without a frame, and the titles that were left out.

    Args:
        headings: of all columns.
        rows: one cell for each of them.
        width: columns of the terminal.
    """
    kept = list(range(len(headings)))
    sizes = [
        max(
            cell_len(text)
            for text in (*heading.title.split("\n"), *(str(row[i]) for row in rows))
        )
        for i, heading in enumerate(headings)
    ]
    while sum(sizes[i] + GAP for i in kept) - GAP > width:
        worst = max(kept, key=lambda i: (headings[i].drop, i))
        if headings[worst].drop == 0:
            break
        kept.remove(worst)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i in kept:
        heading = headings[i]
        table.add_column(
            heading.title,
            justify="left" if heading.is_text else "right",
            overflow="fold",
        )
    for row in rows:
        table.add_row(
            *(row[i] if isinstance(row[i], Text) else Text(str(row[i])) for i in kept)
        )
    left_out = [
        h.title.replace("\n", " ") for i, h in enumerate(headings) if i not in kept
    ]
    return table, left_out


def explain_left_out(titles: Sequence[str], file: str) -> Text | None:
    """Return the line that says where columns without room are; None for none."""
    if not titles:
        return None
    return Text(f"no room for {', '.join(titles)}: see {file}", style="dim")


JOINED = "\0"
"""Stands for a blank where no line may end."""
LONG_WORD = 24
"""Letters of a word that may have a line for itself, such as an address."""


def tidy_help(text: str, *, width: int = 80) -> str:
    """Return a help text without one-word lines at the ends of its paragraphs.

    What stands in brackets (``[default: 6.0; x>=1.0]``) stays together, and numbers are
    ``<int>`` instead of ``<int range>``.

    Args:
        text: as the command line library lays it out, in one or two columns.
        width: of the terminal.
    """
    text = re.sub(r" range>( *)", r">      \1", text)
    return "\n".join(
        line.rstrip()
        for indent, lines in _paragraphs(text.splitlines())
        for line in _wrap(lines, indent, width)
    )


def _paragraphs(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield lines that flow into each other, and the column where their text begins.

    In two columns the text of the right one begins after two blanks or more; lines that
    follow begin in the same column.
    """
    paragraph: list[str] = []
    begin = 0
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if any(paragraph) and line.strip() and indent == begin:
            paragraph.append(line)
            continue
        if paragraph:
            yield begin, paragraph
        columns = re.match(r"( *\S.*?  +)\S", line)
        begin = len(columns[1]) if columns else indent
        paragraph = [line]
    if paragraph:
        yield begin, paragraph


def _wrap(lines: list[str], indent: int, width: int) -> list[str]:
    """Return the lines of a paragraph, the last of them of at least two words."""
    if len(lines) == 1:
        return lines
    words = " ".join(" ".join(line[indent:] for line in lines).split())
    words = re.sub(r"(?<=\w)- (?=\w)", "-", words)  # a line had ended at a hyphen
    words = re.sub(r"\[[^]]*\]", lambda found: found[0].replace(" ", JOINED), words)
    room = width - indent
    layouts = [
        textwrap.wrap(words, narrower, break_long_words=False, break_on_hyphens=False)
        for narrower in range(room, 3 * room // 4, -1)
    ]
    chosen = next((one for one in layouts if _ends_well(one)), layouts[0])
    begins = [lines[0][:indent], *[" " * indent] * (len(chosen) - 1)]
    return [
        begin + line.replace(JOINED, " ")
        for begin, line in zip(begins, chosen, strict=True)
    ]


def _ends_well(lines: list[str]) -> bool:
    """Return whether the last line is not a word alone, which long addresses may be."""
    last = lines[-1]
    return len(lines) == 1 or " " in last or JOINED in last or len(last) > LONG_WORD


class Command(TyperCommand):
    """A command with a tidy help text."""

    def get_help(self, ctx: Any) -> str:
        """Return the help text."""
        return tidy_help(super().get_help(ctx))


class Group(TyperGroup):
    """The commands together, likewise."""

    def get_help(self, ctx: Any) -> str:
        """Return the help text."""
        return tidy_help(super().get_help(ctx))
