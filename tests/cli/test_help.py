"""Help texts fit 80 columns, whole, and no line is a word that was left over."""

import re
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from crack_md.cli import app
from crack_md.cli.common import tidy_help


def command_names(commands: typer.Typer, *before: str) -> Iterator[tuple[str, ...]]:
    yield before
    for command in commands.registered_commands:
        assert command.callback is not None
        yield (*before, command.name or command.callback.__name__)
    for group in commands.registered_groups:
        assert group.typer_instance is not None
        yield from command_names(group.typer_instance, *before, str(group.name))


@pytest.mark.parametrize("name", list(command_names(app)), ids=" ".join)
def test_help_fits_80_columns_without_words_left_alone(name: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    # a line in the right column, or of a paragraph, that is one short word
    alone = [line for line in lines if re.fullmatch(r" {2,}\S{1,24}", line)]
    assert [line for line in alone if not line.lstrip().startswith("-")] == []
    assert "…" not in result.output
    assert " range>" not in result.output


def test_words_are_moved_so_that_none_stays_alone() -> None:
    text = (
        "Options:\n"
        "  --steps <int range>  Most steps of one\n"
        "                       relaxation\n"
        "                       [default: 3;\n"
        "                       x>=1]\n"
        "  --all                Every one\n"
    )
    assert tidy_help(text, width=42).splitlines() == [
        "Options:",
        "  --steps <int>        Most steps of one",
        "                       relaxation",
        "                       [default: 3; x>=1]",
        "  --all                Every one",
    ]


def test_long_words_may_stand_alone() -> None:
    address = "postgresql://user:password@host:5432/name"
    text = f"  --db <str>  A server:\n              {address}."
    assert tidy_help(text, width=60) == text


def test_words_that_a_line_end_had_cut_at_a_hyphen_are_whole() -> None:
    text = (
        "  --solvation <str>  Water. [default: calle-\n"
        "                     vallejo-2015]"
    )
    assert " ".join(tidy_help(text, width=60).split()).endswith(
        "[default: calle-vallejo-2015]"
    )
