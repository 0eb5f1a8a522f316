"""Files of a run: thermo.csv and trajectory, cut back to the restart file."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory
from numpy.typing import NDArray

from crack_md.errors import DataError
from crack_md.files import atomic_path, write_atomically
from crack_md.workflows.md.settings import Format


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


FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class State:
    """One moment of a run."""

    step: int
    positions: NDArray[np.float64]
    momenta: NDArray[np.float64]
    cell: NDArray[np.float64]
    rng_state: dict[str, Any]
    """State of the NumPy bit generator."""
    memory: dict[str, float] = field(default_factory=dict)
    """What thermostat and barostat remember."""
    marks: dict[str, int] = field(default_factory=dict)
    """How far each output file was written."""
    domain_distance: float | None = None
    """The farthest so far from what the model knows, where it tells: 1 is its limit."""

    def apply(self, atoms: Atoms, rng: np.random.Generator) -> None:
        """Put atoms and random numbers, in place, into this state."""
        atoms.set_cell(self.cell)
        atoms.set_positions(self.positions, apply_constraint=False)
        atoms.set_momenta(self.momenta, apply_constraint=False)
        rng.bit_generator.state = self.rng_state


def write_state(path: Path, state: State) -> None:
    """Write a restart file; a kill leaves the old one or the new one.

    Raises:
        DataError: it cannot be written.
    """
    rest = {
        "format_version": FORMAT_VERSION,
        "step": state.step,
        "rng_state": state.rng_state,
        "memory": state.memory,
        "marks": state.marks,
    }
    if state.domain_distance is not None:
        rest["domain_distance"] = state.domain_distance
    buffer = io.BytesIO()
    np.savez(
        buffer,
        positions=state.positions,
        momenta=state.momenta,
        cell=state.cell,
        rest=np.array(json.dumps(rest)),
    )
    write_atomically(path, buffer.getvalue())


def read_state(path: Path, *, n_atoms: int) -> State | None:
    """Return the state of a restart file, None where there is no file.

    Raises:
        DataError: it is damaged or foreign.
    """
    if not path.exists():
        return None
    try:
        # in memory, as NumPy does not close a file that is no archive
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("positions", "momenta", "cell")}
            rest = json.loads(str(file["rest"]))
        if rest.pop("format_version") != FORMAT_VERSION:
            raise ValueError("written by another version of crack-md")
        state = State(**arrays, **rest)
        _check(state, n_atoms)
    except Exception as error:  # archives break in as many ways as there are bytes
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"cannot read '{path}': {text}; it is damaged: put a copy back, or remove "
            "the folder to start again"
        ) from error
    return state


def _check(state: State, n_atoms: int) -> None:
    """Raise what comes for a state that no run can go on from."""
    shapes = {"positions": (n_atoms, 3), "momenta": (n_atoms, 3), "cell": (3, 3)}
    for name, shape in shapes.items():
        array = getattr(state, name)
        if array.dtype != np.float64 or array.shape != shape:
            raise ValueError(f"{name} are {array.dtype} of shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} are not finite")
    if not (isinstance(state.step, int) and state.step >= 0):
        raise ValueError(f"step is {state.step!r}")
    for name in ("memory", "marks"):
        for key, value in getattr(state, name).items():
            if not np.isfinite(float(value)):
                raise ValueError(f"{name} of {key} is {value!r}")
    np.random.default_rng().bit_generator.state = state.rng_state
