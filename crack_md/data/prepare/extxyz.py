"""Frames of extended XYZ as OC20 publishes it, with the line of every mistake.

One frame is the number of atoms, a line of `key=value`, and one line per atom:

    Lattice="(9 numbers)"
    Properties=species:S:1:pos:R:3:move_mask:L:1:tags:I:1:forces:R:3
    energy=-181.54722937 free_energy=-181.54878652 pbc="T T T"

`move_mask` is T for atoms that may move; `tags` are 0 below the surface, 1 at it and 2
in the adsorbate. Forces of fixed atoms are there as well. The energy is the one
extrapolated to zero smearing, on which OC20's adsorption energies stand.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

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
