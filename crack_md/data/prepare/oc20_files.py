"""What an OC20 download holds: files of frames, and the reference energy of each.

    s2ef_train_200K/s2ef_train_200K/0.extxyz.xz   frames of many systems, and
                                    0.txt.xz      a line for each:
                                                  system,frame,reference energy
    0.tar: 0/0/random1234567.extxyz.xz            one relaxation, first frame to last
           0/system.txt                           system,reference energy

Both are read packed or unpacked, with or without `.xz`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from crack_md.data.prepare.extxyz import RawFrame, raw_frames
from crack_md.data.prepare.sources import (
    FolderSource,
    Source,
    folder_of,
    open_source,
    plain_name,
    read_lines,
    reading,
)
from crack_md.errors import DataError

FRAMES = ".extxyz"
_SYSTEM = re.compile(r"random\d+")


class FrameEntry(NamedTuple):
    """One frame, what it belongs to, and its reference energy where one is known."""

    raw: RawFrame
    system: str
    number: int
    """Of the step in its relaxation."""
    reference_eV: float | None
    """Energy of the relaxed slab and of the gas that the adsorbate is counted from."""


@dataclass(frozen=True)
class FrameFile:
    """A file with the frames of one relaxation, or of many systems."""

    download: "Download"
    name: str
    """In its source."""
    index: str | None
    """The text file with a line per frame; None for relaxations."""

    @property
    def where(self) -> str:
        """Return how messages call the file."""
        return f"{self.download.source.path}, {self.name}"

    @property
    def is_relaxation(self) -> bool:
        """Return whether all frames are one relaxation, in order."""
        return self.index is None

    @property
    def system(self) -> str:
        """Return the system of a relaxation, which is its name."""
        return plain_name(self.name).removesuffix(FRAMES)

    def frames(self) -> Iterator[FrameEntry]:
        """Yield all frames, their atoms not yet read.

        Raises:
            DataError: A file is damaged, or its two parts do not fit together.
        """
        with reading(self.download.source, self.name) as stream:
            lines = (line.decode("utf-8", errors="replace") for line in stream)
            found = raw_frames(lines, self.where)
            if self.index is not None:
                yield from self._indexed(found)
                return
            reference = self.download.references.get(self.system)
            for number, raw in enumerate(found):
                yield FrameEntry(raw, self.system, number, reference)

    def _indexed(self, found: Iterator[RawFrame]) -> Iterator[FrameEntry]:
        source, index = self.download.source, self.index
        assert index is not None
        lines = [line for line in read_lines(source, index) if line.strip()]
        count = 0
        for count, raw in enumerate(found, start=1):
            if count > len(lines):
                break
            where = f"{source.path}, {index}, line {count}"
            yield _entry(raw, lines[count - 1], where)
        if count != len(lines):
            raise DataError(
                f"{self.where} has {'more' if count > len(lines) else count} frames "
                f"and {index} {len(lines)} lines; expected one line per frame"
            )


class Download:
    """A folder or archive of OC20."""

    def __init__(self, path: Path) -> None:
        self.source: Source = open_source(path, endings=(FRAMES, f"{FRAMES}.xz"))
        self.files = tuple(self._find())

    @cached_property
    def references(self) -> dict[str, float]:
        """Return the reference energies in eV that come with relaxations."""
        table: dict[str, float] = {}
        names = [n for n in self.source.names if plain_name(n) == "system.txt"]
        for name in names:
            table |= _read_references(self.source, name)
        for parent in (self.source.path, self.source.path.parent):
            # whoever names the inner folder, or one file, still means the one above
            if not table and parent.is_dir() and (parent / "system.txt").is_file():
                table = _read_references(FolderSource(parent, []), "system.txt")
        return table

    def _find(self) -> Iterator[FrameFile]:
        """Yield every file of frames once; unpacked files hide their packed twins."""
        names = {(folder_of(n), plain_name(n)): n for n in self._all_names()}
        for folder, plain in sorted(names, key=lambda key: (key[0], _natural(key[1]))):
            if not plain.endswith(FRAMES) or plain.startswith("._"):
                continue
            name = names[folder, plain]
            index = names.get((folder, f"{plain.removesuffix(FRAMES)}.txt"))
            if index is None and not _SYSTEM.match(plain):
                raise DataError(
                    f"{self.source.path}, {name}: no "
                    f"{plain.removesuffix(FRAMES)}.txt beside it, which says what its "
                    "frames are; expected that, or a relaxation with the name of its "
                    "system, such as random1234567.extxyz.xz"
                )
            yield FrameFile(self, name, index)

    def _all_names(self) -> list[str]:
        names = list(self.source.names)
        if len(names) == 1 and self.source.path.is_dir():  # one file was named
            stem = plain_name(names[0]).removesuffix(FRAMES)
            texts = (f"{stem}.txt.xz", f"{stem}.txt")
            names += [t for t in texts if (self.source.path / t).is_file()]
        return sorted(names, key=lambda name: not name.endswith(".xz"))


def find_files(sources: Sequence[Path]) -> list[FrameFile]:
    """Return the files of frames of all sources, in a fixed order.

    Raises:
        DataError: A source is missing or holds no such files.
    """
    files: list[FrameFile] = []
    for path in sources:
        found = Download(path).files
        if not found:
            raise DataError(
                f"{path} holds no frames; expected *.extxyz.xz or *.extxyz, as in "
                "OC20's S2EF folders and per-adsorbate archives"
            )
        files += found
    return files


def _entry(raw: RawFrame, line: str, where: str) -> FrameEntry:
    parts = [part.strip() for part in line.split(",")]
    try:
        system, frame, *rest = parts
        number = int(frame.removeprefix("frame"))
        reference = float(rest[0]) if rest else None
    except ValueError:
        raise DataError(
            f"{where}: found '{line.strip()[:60]}', expected system,frame,reference "
            "energy, such as random1234567,frame12,-181.5"
        ) from None
    return FrameEntry(raw, system, number, reference)


def _read_references(source: Source, name: str) -> dict[str, float]:
    table = {}
    for number, line in enumerate(read_lines(source, name), start=1):
        if not line.strip():
            continue
        system, _, energy = line.partition(",")
        try:
            table[system.strip()] = float(energy)
        except ValueError:
            raise DataError(
                f"{source.path}, {name}, line {number}: found '{line.strip()[:60]}', "
                "expected system,reference energy"
            ) from None
    return table


def _natural(name: str) -> tuple[int, str]:
    """Return a key that puts 2.extxyz before 10.extxyz."""
    digits = re.match(r"\d+", name)
    return (int(digits[0]) if digits else -1, name)
