"""From the name of an ensemble to what makes a step."""

from collections.abc import Mapping

import numpy as np
from ase import Atoms, units

from crack_md.workflows.md.integrators import (
    Dynamics,
    SplitDynamics,
    bussi_bath,
    langevin_bath,
)
from crack_md.workflows.md.npt import NptDynamics
from crack_md.workflows.md.settings import MDSettings


def build_dynamics(
    atoms: Atoms,
    settings: MDSettings,
    rng: np.random.Generator,
    dof: int,
    memory: Mapping[str, float],
) -> Dynamics:
    """Return the dynamics of an ensemble, with what it remembers."""
    if settings.ensemble == "npt":
        return NptDynamics(atoms, settings, rng, **memory)
    bath = None
    if settings.ensemble == "langevin":
        bath = langevin_bath(
            temperature_K=settings.temperature_K,
            friction_per_ps=settings.friction_per_ps,
        )
    elif settings.ensemble == "bussi":
        bath = bussi_bath(
            temperature_K=settings.temperature_K,
            rate_per_ps=settings.friction_per_ps,
            dof=dof,
        )
    return SplitDynamics(atoms, settings.timestep_fs * units.fs, rng, bath, **memory)
