"""What an OC20 download holds: frames, systems, and the reference energy of each.

One frame is the number of atoms, a line of `key=value`, and one line per atom:

    Lattice="(9 numbers)"
    Properties=species:S:1:pos:R:3:move_mask:L:1:tags:I:1:forces:R:3
    energy=-181.54722937 free_energy=-181.54878652 pbc="T T T"

`move_mask` is T for atoms that may move; `tags` are 0 below the surface, 1 at it and 2
in the adsorbate. Forces of fixed atoms are there as well. The energy is the one
extrapolated to zero smearing, on which OC20's adsorption energies stand.

OC20's mapping file: which adsorbate on which surface a system is.

`oc20_data_mapping.pkl` is a pickle, and a pickle is a program. This one holds
dictionaries of text and numbers, so it is read by an unpickler that knows no function
at all: NumPy numbers, of which only adsorption sites are made, are left out, and
whatever else asks to be imported ends the reading.

    s2ef_train_200K/s2ef_train_200K/0.extxyz.xz   frames of many systems, and
                                    0.txt.xz      a line for each:
                                                  system,frame,reference energy
    0.tar: 0/0/random1234567.extxyz.xz            one relaxation, first frame to last
           0/system.txt                           system,reference energy

Both are read packed or unpacked, with or without `.xz`.
"""

import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

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

_ENTRY = re.compile(r'(\w+)=(?:"([^"]*)"|(\S+))')
_TRUE = ("T", "True", "1")


@dataclass(frozen=True)
class RawFrame:
    """The text of one frame, not yet understood."""

    where: str
    """The file."""
    line: int
    """Where in it the frame begins, from 1."""
    header: str
    rows: list[str]

    def error(self, offset: int, problem: str) -> DataError:
        """Return the error that names the line so far below the first one."""
        return DataError(f"{self.where}, line {self.line + offset}: {problem}")


def raw_frames(lines: Iterable[str], where: str) -> Iterator[RawFrame]:
    """Yield the frames of a file; only their lengths are checked.

    Raises:
        DataError: A frame does not begin with its number of atoms, or is cut short.
    """
    stream = iter(lines)
    number = 0
    for first in stream:
        number += 1
        if not first.strip():  # some files end in empty lines
            continue
        if not first.strip().isdecimal() or int(first) == 0:
            raise DataError(
                f"{where}, line {number}: found '{first.strip()[:40]}', expected the "
                "number of atoms of the next frame"
            )
        count = int(first)
        text = [line for _, line in zip(range(count + 1), stream, strict=False)]
        if len(text) <= count:
            raise DataError(
                f"{where}, line {number + len(text)}: the file ends inside a frame of "
                f"{count} atoms, which begins in line {number}; download it again"
            )
        yield RawFrame(where, number, text[0], text[1:])
        number += count + 1


def parse_frame(raw: RawFrame) -> Atoms:
    """Return a frame with tags, fixed atoms, energy in eV and forces in eV/Å.

    Raises:
        DataError: A line is not what the format says, or a label is missing.
    """
    entries = {key: a or b for key, a, b in _ENTRY.findall(raw.header)}
    columns = _columns(raw, entries.get("Properties", ""))
    table = _table(raw, columns)
    atoms = Atoms(
        table["species"],
        positions=table["pos"],
        cell=_numbers(raw, entries, "Lattice", 9).reshape(3, 3),
        pbc=[value in _TRUE for value in entries.get("pbc", "T T T").split()],
        tags=table["tags"],
    )
    fixed = ~table["move_mask"] if "move_mask" in table else table["tags"] == 0
    if fixed.any():
        atoms.set_constraint(FixAtoms(mask=fixed))
    energy = float(_numbers(raw, entries, "energy", 1)[0])
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=table["forces"])
    return atoms


def _columns(raw: RawFrame, properties: str) -> dict[str, tuple[str, slice]]:
    """Return the kind and the columns of every property."""
    fields = properties.split(":")
    columns, start = {}, 0
    for name, kind, width in zip(fields[::3], fields[1::3], fields[2::3], strict=False):
        if not width.isdecimal():
            raise raw.error(1, f"cannot read Properties={properties}")
        columns[name] = (kind, slice(start, start + int(width)))
        start += int(width)
    missing = {"species": 1, "pos": 3, "tags": 1, "forces": 3}.keys() - columns.keys()
    if missing:
        raise raw.error(
            1,
            f"Properties has no {', '.join(sorted(missing))}; expected OC20's "
            "species, pos, move_mask, tags and forces (test sets have no labels)",
        )
    return columns


def _table(
    raw: RawFrame, columns: dict[str, tuple[str, slice]]
) -> dict[str, NDArray[Any]]:
    width = max(span.stop for _, span in columns.values())
    words = [row.split() for row in raw.rows]
    for offset, row in enumerate(words):
        if len(row) != width:
            raise raw.error(
                offset + 2, f"found {len(row)} columns, expected {width}, as the "
                f"header in line {raw.line + 1} says",
            )  # fmt: skip
    text = np.array(words)
    try:
        table = {name: _values(text, *column) for name, column in columns.items()}
    except (ValueError, KeyError) as error:
        raise _explained(raw, columns, words) from error
    bad = ~np.isfinite(table["pos"]).all(axis=1) | ~np.isfinite(table["forces"]).all(1)
    if bad.any():
        raise raw.error(
            int(bad.argmax()) + 2, "a position or a force that is not finite"
        )
    return table


def _values(text: NDArray[np.str_], kind: str, span: slice) -> NDArray[Any]:
    block = text[:, span]
    if kind == "R":
        return block.astype(np.float64)
    if kind == "I":
        return block[:, 0].astype(np.int64)
    if kind == "L":
        return np.isin(block[:, 0], _TRUE)
    return np.array([atomic_numbers[symbol] for symbol in block[:, 0]])


def _explained(
    raw: RawFrame, columns: dict[str, tuple[str, slice]], words: list[list[str]]
) -> DataError:
    """Return the error that names the first row which cannot be read."""
    for offset, row in enumerate(words):
        for name, column in columns.items():
            try:
                _values(np.array([row]), *column)
            except (ValueError, KeyError):
                found = " ".join(row[column[1]])
                return raw.error(offset + 2, f"cannot read '{found}' as {name}")
    return raw.error(0, "cannot read this frame")


def _numbers(
    raw: RawFrame, entries: dict[str, str], key: str, count: int
) -> NDArray[np.float64]:
    text = entries.get(key, "")
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        values = np.array([])
    if len(values) != count or not np.isfinite(values).all():
        found = f"'{text}'" if text else "nothing"
        raise raw.error(1, f"found {found} for {key}, expected {count} finite numbers")
    return values


_NUMPY_NUMBERS = frozenset(
    {
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("_codecs", "encode"),
    }
)


class SystemInfo(NamedTuple):
    """What the mapping says about one system."""

    adsorbate: str
    """As OC20 writes it: "*O", "*CH2OH" …"""
    surface: str
    """Bulk composition and Miller indices: "Pt3Ni (1, 1, 1)"."""
    anomaly: int
    """0 none, 1 dissociated, 2 desorbed, 3 surface changed, 4 adsorbate misplaced."""


def read_mapping(
    path: Path, *, adsorbate: str | None = None
) -> tuple[dict[str, SystemInfo], dict[str, int]]:
    """Return the systems by their id, and how many there are of each adsorbate.

    Args:
        path: `oc20_data_mapping.pkl`.
        adsorbate: Keep the systems of this one only.

    Raises:
        DataError: The file is missing, damaged, or something else.
    """
    systems, counts = {}, {}  # type: dict[str, SystemInfo], dict[str, int]
    for name, record in _read_records(path).items():
        try:
            symbols = str(record["ads_symbols"])
            counts[symbols] = counts.get(symbols, 0) + 1
            if adsorbate is None or symbols == adsorbate:
                systems[str(name)] = _info(record, symbols)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: cannot read the record of '{name}' ({error!r}); expected "
                "ads_symbols, bulk_symbols, miller_index and anomaly"
            ) from error
    return systems, counts


def _info(record: Mapping[str, Any], symbols: str) -> SystemInfo:
    miller = ", ".join(str(int(index)) for index in record["miller_index"])
    surface = f"{record['bulk_symbols']} ({miller})"
    return SystemInfo(symbols, surface, int(record.get("anomaly", 0)))


def _read_records(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise DataError(f"no mapping file at {path}; expected oc20_data_mapping.pkl")
    try:
        with path.open("rb") as stream:
            content = _InertUnpickler(stream).load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # any byte of the file may be wrong
        raise DataError(
            f"cannot read {path} ({type(error).__name__}: {error}); expected OC20's "
            "oc20_data_mapping.pkl, whole"
        ) from error
    if not isinstance(content, dict) or not content:
        raise DataError(
            f"{path} holds a {type(content).__name__}; expected a dictionary of "
            "systems, as in oc20_data_mapping.pkl"
        )
    return content


class _Nothing:
    """What stands for a NumPy type or number: nothing."""

    __slots__ = ()

    def __new__(cls, *_arguments: object) -> "_Nothing":
        return super().__new__(cls)

    def __setstate__(self, _state: object) -> None: ...


class _InertUnpickler(pickle.Unpickler):
    """Containers, text and numbers; nothing is imported and nothing is called."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) in _NUMPY_NUMBERS:
            return _Nothing
        raise DataError(
            f"holds an object of '{module}.{name}', which was not run; expected "
            "dictionaries of text and numbers"
        )


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
