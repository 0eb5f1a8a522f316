"""Help texts of commands: plain, within the terminal, without words left alone."""

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand, TyperGroup

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
