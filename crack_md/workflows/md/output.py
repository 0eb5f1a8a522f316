"""thermo.csv and the trajectory of a run, which can be cut back to a restart file."""

import csv
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import ase.io
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory

from crack_md.errors import DataError
from crack_md.files import atomic_path
from crack_md.workflows.md.settings import Format

THERMO_FILE = "thermo.csv"
COLUMNS = (
    "step",
    "time_fs",
    "temperature_K",
    "potential_energy_eV",
    "kinetic_energy_eV",
    "total_energy_eV",
    "conserved_energy_eV",
)
PRESSURE_COLUMNS = ("volume_A3", "pressure_GPa")


class TrajectoryFile(Protocol):
    """A trajectory that grows and can be cut."""

    def append(self, atoms: Atoms) -> None:
        """Add one frame."""

    def mark(self) -> int:
        """Put everything on disk and return how far the file goes."""

    def cut(self, mark: int) -> None:
        """Drop all that was written after a mark."""


class ThermoTable:
    """thermo.csv: one row per logged step, floats in full."""

    def __init__(self, path: Path, *, with_pressure: bool) -> None:
        self._path = path
        self._columns = (*COLUMNS, *(PRESSURE_COLUMNS if with_pressure else ()))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; the first brings the header."""
        is_new = not self._path.exists() or self._path.stat().st_size == 0
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)

    def mark(self) -> int:
        """Put everything on disk and return the size in bytes."""
        return _synced_size(self._path)

    def cut(self, mark: int) -> None:
        """Drop all rows after a mark."""
        _cut_bytes(self._path, mark)


class ExtxyzFrames:
    """trajectory.extxyz: text with eight decimals that every tool reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, atoms: Atoms) -> None:
        """Add one frame."""
        ase.io.write(self.path, atoms, format="extxyz", append=True)

    def mark(self) -> int:
        """Put everything on disk and return the size in bytes."""
        return _synced_size(self.path)

    def cut(self, mark: int) -> None:
        """Drop all frames after a mark."""
        _cut_bytes(self.path, mark)


class TrajFrames:
    """trajectory.traj: ASE's binary format, exact; marks count frames."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0

    def append(self, atoms: Atoms) -> None:
        """Add one frame."""
        with Trajectory(self.path, "a") as file:
            file.write(atoms)
        self._count += 1

    def mark(self) -> int:
        """Return the number of frames."""
        if self.path.exists():
            _synced_size(self.path)
        return self._count

    def cut(self, mark: int) -> None:
        """Write the file anew with its first frames."""
        self._count = mark
        if mark == 0:
            self.path.unlink(missing_ok=True)
            return
        with atomic_path(self.path) as temporary, ExitStack() as stack:
            old = stack.enter_context(Trajectory(self.path))
            new = stack.enter_context(Trajectory(temporary, "w"))
            if len(old) < mark:
                raise _lost(self.path)
            for index in range(mark):
                new.write(old[index])


class RunFiles:
    """The table and the trajectory of one run."""

    def __init__(self, folder: Path, format: Format, *, with_pressure: bool) -> None:
        path = folder / f"trajectory.{format}"
        self.thermo = ThermoTable(folder / THERMO_FILE, with_pressure=with_pressure)
        self.frames: TrajectoryFile = (
            ExtxyzFrames(path) if format == "extxyz" else TrajFrames(path)
        )

    def marks(self) -> dict[str, int]:
        """Put everything on disk and return how far each file goes."""
        return {"thermo": self.thermo.mark(), "frames": self.frames.mark()}

    def cut(self, marks: Mapping[str, int]) -> None:
        """Drop what was written after a restart file.

        Raises:
            DataError: a file is shorter than it was then.
        """
        self.thermo.cut(marks.get("thermo", 0))
        self.frames.cut(marks.get("frames", 0))


def freeze_frame(atoms: Atoms, **info: float) -> Atoms:
    """Return a copy with its energies and forces, which no file format refuses."""
    frame = atoms.copy()
    frame.info = dict(info)  # builders leave objects there that extxyz cannot hold
    frame.calc = SinglePointCalculator(
        frame,
        energy=float(atoms.get_potential_energy()),
        forces=atoms.get_forces(apply_constraint=False),
    )
    return frame


def _synced_size(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return path.stat().st_size


def _cut_bytes(path: Path, size: int) -> None:
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        raise _lost(path)
    if found > size:
        os.truncate(path, size)


def _lost(path: Path) -> DataError:
    return DataError(
        f"'{path}' is shorter than when the restart file was written; remove the "
        "folder to start again"
    )
