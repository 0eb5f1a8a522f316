"""NPT: ASE's Langevin-Hoover dynamics of positions and cell volume."""

import warnings

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator

from crack_md.errors import ConfigError, MissingDependencyError
from crack_md.workflows.md.settings import MDSettings

MAX_GAP_A = 6.0
"""A wider empty layer is vacuum, where pressure has no meaning."""


class NptDynamics:
    """ASE's LangevinBAOAB with a volume that fluctuates, the cell's shape kept.

    It tells no conserved quantity: ``heat`` is not a number.
    """

    heat = float("nan")

    def __init__(
        self,
        atoms: Atoms,
        settings: MDSettings,
        rng: np.random.Generator,
        *,
        barostat_momentum: float = 0.0,
    ) -> None:
        try:
            from ase.md.langevinbaoab import LangevinBAOAB
        except ImportError as error:
            raise MissingDependencyError(
                "NPT needs ASE 3.27 or later; update it with: pip install --upgrade ase"
            ) from error
        with warnings.catch_warnings():
            # ASE announces the barostat mass that it derives from its period.
            warnings.filterwarnings("ignore", message="Using heuristic P_mass")
            self._ase = LangevinBAOAB(
                atoms,
                settings.timestep_fs * units.fs,
                temperature_K=settings.temperature_K,
                externalstress=-settings.pressure_GPa * units.GPa,
                hydrostatic=True,
                T_tau=1000.0 * units.fs / settings.friction_per_ps,
                P_tau=settings.pressure_time_fs * units.fs,
                rng=rng,
            )
        self._ase.p_eps = barostat_momentum

    def step(self) -> None:
        """Go one time step ahead."""
        self._ase.step()

    def memory(self) -> dict[str, float]:
        """Return the momentum of the barostat, in ASE units."""
        return {"barostat_momentum": float(self._ase.p_eps)}


def require_pressure(atoms: Atoms, calculator: BaseCalculator) -> None:
    """Refuse NPT where there is no stress, or no pressure.

    Raises:
        ConfigError: the model has no stress, or the structure is no bulk.
    """
    if "stress" not in calculator.implemented_properties:
        raise ConfigError(
            "npt needs stress, and this model has none: its forces are direct, not the "
            "gradient of an energy; use nve, langevin or bussi"
        )
    if atoms.constraints:
        raise ConfigError(
            "npt moves all atoms with the cell, and this structure has constraints; "
            "remove them, or use langevin or bussi"
        )
    if not atoms.pbc.all() or _largest_gap(atoms) > MAX_GAP_A:
        raise ConfigError(
            "npt needs a bulk: this structure is not periodic in all directions or "
            "has vacuum, where pressure has no meaning; use langevin or bussi"
        )


def _largest_gap(atoms: Atoms) -> float:
    """Return the thickness in Å of the widest empty layer along a cell vector."""
    heights = 1.0 / np.linalg.norm(atoms.cell.reciprocal().array, axis=1)
    scaled = np.sort(atoms.get_scaled_positions(wrap=True), axis=0)
    gaps = np.diff(scaled, axis=0, append=scaled[:1] + 1.0)
    return float((gaps.max(axis=0) * heights).max())
