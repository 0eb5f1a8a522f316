"""When a replica has left what is physical, and what it starts again from."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from jaxtyping import Float

from crack_md.calculators.batch_forces import ForceBatch
from crack_md.calculators.replica_atoms import ReplicaAtoms, one_for_each
from crack_md.errors import ConfigError

PerReplica = Float[np.ndarray, " replica"]


def blow_up_reasons(
    positions: Float[np.ndarray, "atom 3"],
    velocities: Float[np.ndarray, "atom 3"],
    answer: ForceBatch,
    *,
    atoms: ReplicaAtoms,
    max_temperature_K: PerReplica,
) -> dict[int, str]:
    """Return why replicas have blown up, for those that have."""
    limit = max_temperature_K
    finite = np.isfinite(answer.energies)
    for values in (positions, velocities, answer.forces):
        finite &= atoms.are_finite(values)
    temperatures = atoms.temperatures(velocities)
    bad = ~finite | (temperatures > limit)
    reasons: dict[int, str] = dict(answer.errors)
    for replica in np.flatnonzero(bad).tolist():
        reasons.setdefault(
            replica,
            f"{temperatures[replica]:.0f} K, above {limit[replica]:.0f} K"
            if finite[replica]
            else "positions, energy or forces are not finite",
        )
    return reasons


def max_temperatures(
    wanted: float | Sequence[float] | None,
    *,
    temperature_K: PerReplica,
    friction_per_ps: PerReplica,
    atoms: ReplicaAtoms,
) -> PerReplica:
    """Return the temperatures in K above which replicas have blown up.

    By default (3 + 30/f) times that of the bath, with f degrees of freedom: 13 times
    for one atom, 3.2 times for fifty. Thermal motion gets there once in 5e7 steps at
    most. There is no limit without a bath that gives the scale.
    """
    if wanted is not None:
        return one_for_each(wanted, atoms.n_replicas, "max_temperature_K")
    has_bath = (temperature_K > 0) & (friction_per_ps > 0)
    factor = np.where(has_bath, 3 + 30 / atoms.n_degrees, np.inf)
    return factor * np.where(has_bath, temperature_K, 1.0)


def start_positions(
    structures: Sequence[Atoms], frames: Sequence[Sequence[Atoms]] | None
) -> list[list[Float[np.ndarray, "_ 3"]]]:
    """Return what each replica may start again from: its start, or the frames given.

    Raises:
        ConfigError: frames are missing, or of other atoms.
    """
    if frames is None:
        return [[atoms.positions.copy()] for atoms in structures]
    if len(frames) != len(structures) or not all(len(some) for some in frames):
        raise ConfigError(
            f"restart_frames has frames for {sum(bool(len(some)) for some in frames)} "
            f"replicas, expected some for each of the {len(structures)}"
        )
    for replica, (atoms, some) in enumerate(zip(structures, frames, strict=True)):
        if any(not np.array_equal(one.numbers, atoms.numbers) for one in some):
            raise ConfigError(
                f"restart_frames of replica {replica} have other atoms than "
                f"{atoms.get_chemical_formula()}, or another order of them"
            )
    return [[one.positions.copy() for one in some] for some in frames]
