"""The restart file of a run: positions, momenta, cell, random numbers, thermostat."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from crack_md.errors import DataError
from crack_md.files import write_atomically

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
    buffer = io.BytesIO()
    np.savez(
        buffer,
        positions=state.positions,
        momenta=state.momenta,
        cell=state.cell,
        rest=np.array(json.dumps(rest)),
    )
    write_atomically(path, buffer.getvalue())


def read_state(path: Path) -> State | None:
    """Return the state of a restart file, None where there is no file.

    Raises:
        DataError: it is damaged or foreign.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("positions", "momenta", "cell")}
            rest = json.loads(str(file["rest"]))
        if rest.pop("format_version") != FORMAT_VERSION:
            raise ValueError("written by another version of crack-md")
        return State(**arrays, **rest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read '{path}': {error}; remove the folder to start again"
        ) from error
