"""thermo.csv and the trajectory of a run, which can be cut back to a restart file."""

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import ase.io
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory

from crack_md.files import atomic_path
from crack_md.workflows.md.growing_file import GrowingFile, cannot_write, lost
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
        self._file = GrowingFile(path)
        self._columns = (*COLUMNS, *(PRESSURE_COLUMNS if with_pressure else ()))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; the first brings the header."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if self._file.size == 0:
            writer.writeheader()
        writer.writerow(row)
        self._file.append(text.getvalue().encode())

    def mark(self) -> int:
        """Put everything on disk and return the size in bytes."""
        return self._file.mark()

    def cut(self, mark: int) -> None:
        """Drop all rows after a mark."""
        self._file.cut(mark)


class ExtxyzFrames:
    """trajectory.extxyz: text with eight decimals that every tool reads."""

    def __init__(self, path: Path) -> None:
        self._file = GrowingFile(path)

    def append(self, atoms: Atoms) -> None:
        """Add one frame."""
        text = io.StringIO()
        ase.io.write(text, atoms, format="extxyz")
        self._file.append(text.getvalue().encode())

    def mark(self) -> int:
        """Put everything on disk and return the size in bytes."""
        return self._file.mark()

    def cut(self, mark: int) -> None:
        """Drop all frames after a mark."""
        self._file.cut(mark)


class TrajFrames:
    """trajectory.traj: ASE's binary format, exact; marks count frames."""

    def __init__(self, path: Path) -> None:
        self._file = GrowingFile(path)
        self._count = 0

    def append(self, atoms: Atoms) -> None:
        """Add one frame."""
        self._file.require_untouched()
        try:
            with _closed_for_sure(self._file.path) as file:
                file.write(atoms)
            self._file.size = self._file.path.stat().st_size
        except OSError as error:
            raise cannot_write(self._file.path, error) from error
        self._count += 1

    def mark(self) -> int:
        """Put everything on disk and return the number of frames."""
        self._file.mark()
        return self._count

    def cut(self, mark: int) -> None:
        """Write the file anew with its first frames."""
        path = self._file.path
        self._count = mark
        if mark == 0:
            path.unlink(missing_ok=True)
            self._file.size = 0
            return
        if not path.exists():
            raise lost(path)
        with atomic_path(path) as temporary, ExitStack() as stack:
            try:
                old = stack.enter_context(Trajectory(path))
                old[mark - 1]
            except Exception as error:  # ASE's reader has no error of its own
                raise lost(path) from error
            new = stack.enter_context(Trajectory(temporary, "w"))
            for index in range(mark):
                new.write(old[index])
        self._file.size = path.stat().st_size


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


@contextmanager
def _closed_for_sure(path: Path) -> Iterator[Any]:
    """Open ASE's trajectory for more frames; a full disk keeps it from closing."""
    file: Any = Trajectory(path, "a")
    try:
        yield file
        file.close()
    except OSError:
        # the buffer cannot be written, now or when Python ends
        file.backend.fd.raw.close()
        raise
