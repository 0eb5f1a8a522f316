"""Tables for terminals: as many columns as there is room for, names in one piece."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

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
        max(cell_len(text) for text in (heading.title, *(str(row[i]) for row in rows)))
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
    left_out = [h.title for i, h in enumerate(headings) if i not in kept]
    return table, left_out


def explain_left_out(titles: Sequence[str], file: str) -> Text | None:
    """Return the line that says where columns without room are; None for none."""
    if not titles:
        return None
    return Text(f"no room for {', '.join(titles)}: see {file}", style="dim")
