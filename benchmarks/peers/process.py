"""The driver's end of a worker: starts it, asks it, and ends it when it hangs."""

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class PeerError(Exception):
    """An engine could not do something; the message is the reason for the report."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final
        """Whether the same is bound to happen with more atoms."""


class WorkerProcess:
    """A process that answers one request after the other, or is ended.

    Args:
        command: Starts the worker.
        environment: Variables of its environment.
        log: File for everything it prints.
    """

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], log: Path
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self.started = time.perf_counter()
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(environment),
                start_new_session=True,  # its own children are ended with it
            )
        self._unread = b""

    @property
    def runs(self) -> bool:
        """Return whether the process is there."""
        return self._process.poll() is None

    def ask(self, do: str, *, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            PeerError: The worker answered with an error, died, or took too long; in the
                last two cases it is gone.
        """
        request = json.dumps({"do": do, **arguments}) + "\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        answer = json.loads(self._line(timeout_s))
        if answer.pop("ok"):
            return answer
        reason = "out of memory" if answer["memory"] else answer["error"]
        raise PeerError(reason, final=answer["memory"])

    def stop(self, *, patience_s: float = 5.0) -> None:
        """Ask the worker to leave, and end it if it does not."""
        if self.runs and self._process.stdin is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._process.stdin.write(b'{"do": "quit"}\n')
                self._process.stdin.close()
                self._process.wait(patience_s)
        self._kill()

    def _line(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        channel = self._process.stdout.fileno()
        end = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select(
                [channel], [], [], max(end - time.monotonic(), 0)
            )
            if not ready:
                self._kill()
                raise PeerError(f"no answer within {timeout_s:.0f} s", final=True)
            chunk = os.read(channel, 1 << 20)
            if not chunk:
                raise self._death()
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _death(self) -> PeerError:
        self._process.wait()
        code = self._process.returncode
        self._kill()
        if code == -signal.SIGKILL:
            return PeerError("killed by the system: out of memory?", final=True)
        lines = self._log.read_text(errors="replace").strip().splitlines()
        last = lines[-1].strip() if lines else "it said nothing"
        return PeerError(f"the process ended with code {code}: {last[:200]}")

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
