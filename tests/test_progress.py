"""One bar for all commands, on terminals only."""

import io
import re
import time

import pytest
from rich.console import Console

from crack_md.progress import (
    ProgressEvent,
    build_progress,
    show_events,
    show_progress,
)


@pytest.mark.parametrize(
    ("terminal", "shows", "seen"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_bars_show_on_terminals_only(terminal: bool, shows: bool, seen: bool) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100)
    with build_progress("items", console=console, shows=shows) as bar:
        task = bar.add_task("slabs", total=8)
        bar.update(task, completed=3)
    assert ("slabs" in text.getvalue()) == seen
    assert ("3/8" in text.getvalue()) == seen


def test_a_budget_counts_in_percent() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    with build_progress("percent", console=console) as bar:
        bar.update(bar.add_task("training", total=1.0), completed=0.25)
    assert "25%" in text.getvalue()


def test_without_a_terminal_plain_lines_tell_where_it_stands() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=False, width=100)
    with build_progress("items", console=console, line_every_s=0.01) as bar:
        task = bar.add_task("Pt(111) O fcc", total=8)
        bar.update(task, completed=3)
        deadline = time.monotonic() + 10.0
        while "3/8" not in text.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    first = text.getvalue().splitlines()[0]
    assert re.fullmatch(r"Pt\(111\) O fcc: 3/8 after 0 s.*", first)


@pytest.mark.parametrize("shows", [True, False])
def test_short_runs_and_quiet_ones_write_no_line(shows: bool) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=False)
    every = 60.0 if shows else 0.001
    options = {"console": console, "shows": shows, "line_every_s": every}
    with build_progress("items", **options) as bar:  # type: ignore[arg-type]
        bar.add_task("slabs", total=8)
        time.sleep(0.05)
    assert text.getvalue() == ""


def test_events_of_workflows_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with show_events() as report:
        report(ProgressEvent(1, 2, "first part"))
        report(ProgressEvent(2, 2, "first part"))
        report(ProgressEvent(1, 5, "second part"))
    assert capsys.readouterr().err == ""


def test_log_of_a_job_gets_plain_lines_though_colors_are_forced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names with markup too: a row of a table must not end a screening."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with build_progress("items", line_every_s=0.02) as bar:
        bar.add_task("Pt[/x] O fcc", total=4, completed=1)
        seen, end = "", time.monotonic() + 10.0
        while not seen and time.monotonic() < end:
            seen = capsys.readouterr().err
    assert seen.startswith("Pt[/x] O fcc: 1/4 after ")


def test_bars_draw_names_with_markup_as_they_are() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bar = build_progress("items", console=console)
    bar.add_task("Pt[/x] [bold]O", total=4)
    console.print(bar.get_renderable())
    assert "Pt[/x] [bold]O" in console.file.getvalue()  # type: ignore[attr-defined]


def test_preparations_without_a_count_are_told_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Loading a teacher takes minutes, and the first item has not been done yet."""
    with show_progress("reading frames", None, quiet=False, line_every_s=0.02):
        seen, end = "", time.monotonic() + 10.0
        while not seen and time.monotonic() < end:
            seen = capsys.readouterr().err
    assert seen.startswith("reading frames: not done after ")
