"""All that changes while replicas move, and its form on disk."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from crack_md.errors import DataError


class BlowUp(NamedTuple):
    """A replica that had to start again."""

    replica: int
    step: int
    reason: str


class ReplicaState(NamedTuple):
    """Replicas after a whole step; never changed in place."""

    positions: Float[np.ndarray, "atom 3"]
    """Å; not wrapped. The atoms of all replicas follow each other."""
    velocities: Float[np.ndarray, "atom 3"]
    """In ASE's units."""
    energies: Float[np.ndarray, " replica"]
    """eV."""
    forces: Float[np.ndarray, "atom 3"]
    """eV/Å."""
    seeds: Int[np.ndarray, " replica"]
    step_count: int
    steps_since_start: Int[np.ndarray, " replica"]
    """Steps since each replica started, or started again."""
    blow_ups: tuple[BlowUp, ...]


ARRAYS = ("positions", "velocities", "energies", "forces", "seeds", "steps_since_start")


def as_arrays(state: ReplicaState) -> dict[str, np.ndarray]:
    """Return a state as plain arrays, which `numpy.savez` takes."""
    events = state.blow_ups
    return {
        **{name: getattr(state, name).copy() for name in ARRAYS},
        "step_count": np.array(state.step_count),
        "blow_up_replica": np.array([event.replica for event in events], dtype=int),
        "blow_up_step": np.array([event.step for event in events], dtype=int),
        "blow_up_reason": np.array([event.reason for event in events], dtype=str),
    }


def from_arrays(
    arrays: Mapping[str, np.ndarray], *, like: ReplicaState
) -> ReplicaState:
    """Return the state that was made into arrays.

    Raises:
        DataError: it is none of replicas like these.
    """
    found = {}
    for name in ARRAYS:
        expected = getattr(like, name)
        shape = np.shape(arrays[name]) if name in arrays else "nothing"
        if shape != expected.shape:
            raise DataError(
                f"the state holds {shape} for {name}, expected {expected.shape}; it is "
                "one of other replicas"
            )
        found[name] = np.array(arrays[name], dtype=expected.dtype)
    columns = (arrays[f"blow_up_{name}"] for name in BlowUp._fields)
    blow_ups = tuple(
        BlowUp(int(replica), int(step), str(reason))
        for replica, step, reason in zip(*columns, strict=True)
    )
    return ReplicaState(
        **found, step_count=int(arrays["step_count"]), blow_ups=blow_ups
    )
