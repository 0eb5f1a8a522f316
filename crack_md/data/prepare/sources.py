"""Files of a download, from an unpacked folder or straight from its tar archive.

Nothing is ever unpacked to disk, so names inside an archive can do no harm. Files that
end in `.xz` are decompressed while they are read.
"""

import lzma
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from crack_md.errors import DataError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class Source(Protocol):
    """A folder or an archive."""

    path: Path

    @property
    def names(self) -> tuple[str, ...]:
        """Return the files inside, as `folder/file`, in the order they are stored."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Return the content of one file, as it is stored, to be used by `with`."""


class FolderSource:
    """A folder with everything below it, or some files of it."""

    def __init__(self, path: Path, names: Iterable[str] | None = None) -> None:
        self.path = path
        if names is None:
            files = (file for file in path.rglob("*") if file.is_file())
            names = sorted(file.relative_to(path).as_posix() for file in files)
        self.names = tuple(names)

    def open(self, name: str) -> IO[bytes]:
        """Return the content of one file."""
        return (self.path / name).open("rb")


class ArchiveSource:
    """The regular files of a tar archive; links and devices in it are ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with tarfile.open(path) as archive:
                members = [member for member in archive if member.isfile()]
        except (tarfile.TarError, EOFError, OSError, lzma.LZMAError) as error:
            raise DataError(
                f"cannot read {path}: {error}; expected a whole tar archive, download "
                "it again"
            ) from error
        self._members = {member.name: member for member in members}
        self.names = tuple(self._members)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Yield the content of one file; the archive is open no longer than that."""
        with tarfile.open(self.path) as archive:
            stream = archive.extractfile(self._members[name])
            assert stream is not None, "regular files have a content"
            with stream:
                yield stream


def open_source(path: Path, *, endings: tuple[str, ...]) -> Source:
    """Return the files of a folder, of a tar archive, or of one file's folder.

    Args:
        path: What the user named.
        endings: Of single files that may be named.

    Raises:
        DataError: There is no such thing, or it is none of these.
    """
    if not path.exists():
        raise DataError(f"no such file or folder: {path}")
    if path.is_dir():
        return FolderSource(path)
    if path.name.endswith(endings):
        return FolderSource(path.parent, [path.name])
    if path.name.endswith(ARCHIVES):
        return ArchiveSource(path)
    raise DataError(
        f"{path} is none of the files this command reads; expected a folder, a tar "
        f"archive, or a file that ends in {', '.join(endings)}"
    )


@contextmanager
def reading(source: Source, name: str) -> Iterator[IO[bytes]]:
    """Yield the decompressed content of one file.

    Raises:
        DataError: The file is damaged; the message names it.
    """
    where = f"{source.path}, {name}"
    try:
        with source.open(name) as stored:
            if name.endswith(".xz"):
                with lzma.open(stored) as plain:
                    yield plain
            else:
                yield stored
    except (lzma.LZMAError, EOFError, tarfile.TarError, OSError) as error:
        raise DataError(
            f"{where}: the file is damaged or cut short ({error}); download it again"
        ) from error


def read_lines(source: Source, name: str) -> list[str]:
    """Return the lines of a small text file."""
    with reading(source, name) as stream:
        try:
            return stream.read().decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{source.path}, {name}: not a text file") from error


def plain_name(name: str) -> str:
    """Return the last part of a name, without the ending of its compression."""
    return PurePosixPath(name).name.removesuffix(".xz")


def folder_of(name: str) -> str:
    """Return the folder of a name inside its source, "." at the top."""
    return str(PurePosixPath(name).parent)
