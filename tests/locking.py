"""Another process that holds a lock file."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CODE = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1], mode=0o644):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another_process(lock_file: Path) -> Iterator[None]:
    """Hold a lock file elsewhere while the block runs."""
    with subprocess.Popen(
        [sys.executable, "-c", CODE, str(lock_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield
        other.communicate("")
