"""The command line as a whole: help, version, and how it ends."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from crack_md import __version__, cli
from crack_md.errors import DataError
from tests.test_api import run_python

COMMANDS = [
    "screen",
    "relax",
    "md",
    "phonons",
    "rank",
    "report",
    "train",
    "sample",
    "compare",
    "evaluate",
    "augment",
    "label",
    "convert",
    "info",
    "bench",
    "domain",
    "distil",
    "pack",
    "doctor",
    "surfaces",
    "score",
    "compile",
    "export",
]


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Take SIGINT as in a terminal: what a shell starts behind it ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Return the exit code of the command line, run as the console script runs it."""
    monkeypatch.setattr(sys, "argv", ["crack-md", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def add_failing_command(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Give the command line a command ``fail`` that raises an error."""
    commands = list(cli.app.registered_commands)
    monkeypatch.setattr(cli.app, "registered_commands", commands)

    @cli.app.command("fail")
    def fail() -> None:
        raise error


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert run_main(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"crack-md {__version__}\n"


def test_help_names_every_command():
    result = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    assert [name for name in COMMANDS if name not in result.output] == []


def test_no_command_is_unlisted():
    names = {
        command.name or command.callback.__name__.replace("_", "-")
        for command in cli.app.registered_commands
        if command.callback
    }
    assert names == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_explains_itself(command: str):
    from typer.main import get_command

    group = get_command(cli.app)
    parameters = group.commands[command].params  # type: ignore[attr-defined]
    silent = [
        p.name for p in parameters if not getattr(p, "help", "") and p.name != "help"
    ]
    assert silent == []
    assert len(group.commands[command].help or "") > 30  # type: ignore[attr-defined]


def test_help_comes_without_torch():
    # it takes seconds to import, and a help text should not wait for it
    code = """
import sys
from typer.testing import CliRunner
from crack_md.cli import app
assert CliRunner().invoke(app, ["screen", "--help"]).exit_code == 0
print([name for name in ("torch", "matplotlib", "scipy") if name in sys.modules])
"""
    assert run_python(code) == "[]\n"


def test_bad_input_is_one_line_and_code_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    add_failing_command(monkeypatch, DataError("the file 'a.db'\nis empty"))
    assert run_main(monkeypatch, "fail") == 2
    captured = capsys.readouterr()
    assert captured.err == "error: the file 'a.db' is empty\n"
    assert captured.out == ""


def test_shells_complete_commands_and_options():
    assert completed("crack-md scr", word=1) == ["screen"]
    assert completed("crack-md screen --max-si", word=2) == ["--max-sites"]


def completed(typed: str, *, word: int) -> list[str]:
    """Return what the command line offers bash for a word of what was typed."""
    variables = {
        "_CRACK_MD_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(word),
    }
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from crack_md.cli import app; app(prog_name='crack-md')",
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **variables},
    )
    return done.stdout.split()


def test_missing_file_end_to_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert run_main(monkeypatch, "info", str(tmp_path / "absent.pt")) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "absent.pt" in message
    assert message.count("\n") == 1


def test_interruption_is_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    add_failing_command(monkeypatch, KeyboardInterrupt())
    assert run_main(monkeypatch, "fail") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_an_interruption_that_became_another_error_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Compiled code, as matplotlib's, turns Ctrl-C into an error of its own."""
    monkeypatch.setattr(
        cli.app, "registered_commands", list(cli.app.registered_commands)
    )

    @cli.app.command("fail")
    def fail() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise ValueError("Invalid bounding box")

    assert run_main(monkeypatch, "fail") == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interruption_in_a_finalizer_is_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Python ignores exceptions there, and would go on as if nobody had asked."""
    monkeypatch.setattr(
        cli.app, "registered_commands", list(cli.app.registered_commands)
    )

    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    @cli.app.command("go-on")
    def go_on() -> None:
        Finalized()
        time.sleep(10)

    assert run_main(monkeypatch, "go-on") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_code_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    add_failing_command(monkeypatch, OSError(errno.ENOSPC, "No space left", "md.traj"))
    assert run_main(monkeypatch, "fail") == 2
    told = capsys.readouterr().err
    assert told.startswith("error: [Errno 28] No space left: 'md.traj'; free some")
    assert told.count("\n") == 1


def test_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    add_failing_command(monkeypatch, ZeroDivisionError("a bug"))
    monkeypatch.setattr(sys, "argv", ["crack-md", "fail"])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main()


def test_unknown_command_and_option(monkeypatch: pytest.MonkeyPatch):
    assert run_main(monkeypatch, "scren") == 2
    assert run_main(monkeypatch, "info", "--colour") == 2


def test_no_command_shows_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run_main(monkeypatch) in (0, 2)
    assert "screen" in capsys.readouterr().out
