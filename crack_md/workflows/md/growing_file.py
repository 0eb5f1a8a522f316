"""A file that grows while a run goes on, and can be cut back to a restart file."""

import os
from contextlib import suppress
from pathlib import Path

from crack_md.errors import DataError


class GrowingFile:
    """A file that this run alone writes to, and at its end only.

    Its size is remembered: a file that is gone or has changed is not begun anew, as if
    nothing had been lost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0

    def require_untouched(self) -> None:
        """Raise DataError where others have removed or changed the file."""
        found = self.path.stat().st_size if self.path.exists() else 0
        if found != self.size:
            raise DataError(
                f"'{self.path}' was {'removed' if found == 0 else 'changed'} while "
                "the run went on; put it back and repeat the command, or give another "
                "--out"
            )

    def append(self, content: bytes) -> None:
        """Write at the end, or nothing at all.

        Raises:
            DataError: the disk is full, or the file was removed or changed.
        """
        self.require_untouched()
        try:
            with self.path.open("ab") as file:
                file.write(content)
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, self.size)
            raise cannot_write(self.path, error) from error
        self.size += len(content)

    def mark(self) -> int:
        """Put everything on disk and return the size in bytes."""
        self.require_untouched()
        _sync(self.path)
        return self.size

    def cut(self, size: int) -> None:
        """Drop all that was written after a mark.

        Raises:
            DataError: the file is shorter.
        """
        _cut_bytes(self.path, size)
        self.size = size


def cannot_write(path: Path, error: OSError) -> DataError:
    """Return the error that says why, and that nothing before is lost."""
    return DataError(
        f"cannot write '{path}': {error.strerror or error}; all up to the last restart "
        "file is kept: make room and run the same command again"
    )


def _sync(path: Path) -> None:
    if not path.exists():
        return
    try:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


def _cut_bytes(path: Path, size: int) -> None:
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        raise lost(path)
    if found > size:
        os.truncate(path, size)


def lost(path: Path) -> DataError:
    """Return the error of a file that ends before the mark it is cut to."""
    return DataError(
        f"'{path}' is shorter than when the restart file was written; remove the "
        "folder to start again"
    )
