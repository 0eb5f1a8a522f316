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
