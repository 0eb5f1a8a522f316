"""How long the command line takes to start: CPU seconds of a fresh process.

    python benchmarks/startup.py

``crack-md --help`` must need less than 0.5 s, and ``crack-md screen missing.db``, which
ends with one line about the file, less than 1.5 s: neither may load PyTorch. Times are
those of the operating system for the process (user and system), the smallest of five.
"""

import os
import subprocess
import sys
from dataclasses import dataclass

CODE = "import sys; sys.argv[0] = 'crack-md'; from crack_md.cli import main; main()"
REPEATS = 5


@dataclass(frozen=True)
class Target:
    """A command, and the CPU seconds that it may take."""

    arguments: tuple[str, ...]
    limit_s: float


TARGETS = (
    Target(("--help",), 0.5),
    Target(("screen", "missing.db"), 1.5),
)


def cpu_seconds(arguments: tuple[str, ...]) -> float:
    """Return user and system time in s of one run in a process of its own."""
    before = os.times()
    subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, check=False
    )
    after = os.times()
    user = after.children_user - before.children_user
    return user + after.children_system - before.children_system


def main() -> int:
    """Print a line per command; return 1 if one of them is too slow."""
    is_late = False
    for target in TARGETS:
        seconds = min(cpu_seconds(target.arguments) for _ in range(REPEATS))
        is_late |= seconds > target.limit_s
        name = f"crack-md {' '.join(target.arguments)}"
        print(f"{name:28} {seconds:5.2f} s of CPU (limit {target.limit_s:g} s)")
    return int(is_late)


if __name__ == "__main__":
    sys.exit(main())
