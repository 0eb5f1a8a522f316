"""One bar for all commands, on terminals only."""

import io

import pytest
from rich.console import Console

from crack_md.progress import build_progress


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
