"""One writer at a time, by a lock of the operating system: a killed run leaves none."""

import errno
import os
from pathlib import Path

from filelock import FileLock, Timeout

from crack_md.errors import DataError


class Claim:
    """The right to write to a file or folder, until `release` or the process ends.

    The process that has it may claim it again, to go on where it was interrupted,
    unless it says otherwise.

    Args:
        target: what is written to.
        lock_file: beside or in it; made where its folder exists.
        advice: what to do where another process has the claim.
        once: whether a second claim by the same process is refused as well.

    Raises:
        DataError: another process writes to it, or its disk has no locks.
    """

    def __init__(
        self, target: Path, lock_file: Path, *, advice: str, once: bool = False
    ) -> None:
        self._lock = FileLock(
            lock_file.resolve(),
            mode=0o644,
            is_singleton=not once,
            thread_local=False,
        )
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise DataError(
                f"another run is writing to '{target}'; wait for it, or {advice}"
            ) from None
        except (OSError, NotImplementedError) as error:  # some network disks
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"cannot lock '{target}' against other runs: {reason}; {advice}, on a "
                "disk that has locks"
            ) from error

    def release(self) -> None:
        """Let others write."""
        self._lock.release(force=True)


def claim_file(path: Path) -> Claim:
    """Return the right to write a file; ``.NAME.lock`` stays beside it."""
    return Claim(path, path.with_name(f".{path.name}.lock"), advice="give another name")


def claim_folder(path: Path, *, advice: str, once: bool = False) -> Claim:
    """Return the right to write into a folder; its ``.lock`` stays."""
    return Claim(path, path / ".lock", advice=advice, once=once)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of killed runs: ``.NAME.`` and a process or random name.

    Only who has the claim may do so.
    """
    for old in path.parent.glob(f".{path.name}.*"):
        if old.suffix != ".lock" and old.is_file():
            old.unlink(missing_ok=True)


def is_full_disk(error: BaseException) -> bool:
    """Return whether a file could not be written for lack of space."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = str(error)  # databases have errors of their own
    return any(words in text for words in ("disk is full", os.strerror(errno.ENOSPC)))
