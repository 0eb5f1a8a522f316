"""The package talks to nobody unless asked: no call home, no download."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import RUN, one_thread

WATCHED = """
import socket, sys

def refuse(event, values):
    if event == "socket.connect" and values[0].family == getattr(socket, "AF_UNIX", -1):
        return
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname",
                 "socket.sendto", "socket.sendmsg", "urllib.Request"):
        print(event, values, file=sys.stderr)
        raise SystemExit(77)

sys.addaudithook(refuse)
"""
ROOT = Path(__file__).parents[1]
SURFACES = str(ROOT / "examples" / "surfaces.db")
TINY = str(ROOT / "configs" / "tiny.yaml")
FRAMES = str(ROOT / "tests" / "data" / "tiny.extxyz")
SHORT = ["--set", f"data.path={FRAMES}", "--set", "run.max_steps=1"]
COMMANDS = [
    ["--version"],
    ["doctor"],
    ["info", "default"],
    ["screen", SURFACES, "--select", "id=1", "--max-sites", "1", "--steps", "2"],
    ["train", TINY, *SHORT],
]


def watched(
    code: str, *arguments: str, folder: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WATCHED + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=one_thread(),
    )


def test_the_watch_sees_connections(tmp_path: Path) -> None:
    code = "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)"
    done = watched(code, folder=tmp_path)
    assert done.returncode == 77
    assert done.stderr.startswith("socket.getaddrinfo")


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda words: words[0])
def test_commands_open_no_connection(arguments: list[str], tmp_path: Path) -> None:
    done = watched(RUN, *arguments, folder=tmp_path)
    assert "socket." not in done.stderr
    assert done.returncode in (0, 1), done.stderr  # 1: two steps converge nothing
