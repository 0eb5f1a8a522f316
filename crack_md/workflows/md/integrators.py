"""One step of dynamics, split into parts that are each solved exactly; NPT beside.

B kicks momenta by forces, A drifts positions, O couples momenta to a heat bath. In the
order B A O A B,

    p ← p + ½Δt F(x);  x ← x + ½Δt p/m;  p ← O(p);  x ← x + ½Δt p/m;  p ← p + ½Δt F(x)

this is velocity Verlet where O does nothing, and BAOAB where O is Langevin friction and
noise (Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013)): positions of a
harmonic oscillator have the exact canonical variance at any Δt. With a stochastic
rescaling of all momenta for O it is the thermostat of Bussi, Donadio and Parrinello,
J. Chem. Phys. 126, 014101 (2007).

Constraints act as in ASE: positions are put back after every drift and the momenta are
corrected by what that moved, then projected.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.md.velocitydistribution import Stationary, ZeroRotation

from crack_md.errors import ConfigError, MissingDependencyError
from crack_md.workflows.md.carried import SplitDynamicsOnDevice, carrier_for
from crack_md.workflows.md.settings import Ensemble, MDSettings

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

    def advance(self, n_steps: int) -> int:
        """Go one time step ahead."""
        self._ase.step()
        return 1

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


Bath = Callable[[Atoms, float, np.random.Generator], None]
"""Changes momenta in place over a time in ASE units."""


class Integrator(Protocol):
    """Moves one structure through time."""

    @property
    def heat(self) -> float:
        """Return what the bath has put in so far, in eV; total energy − heat stays."""

    def advance(self, n_steps: int) -> int:
        """Go some time steps ahead, up to a number of them; return how many."""

    def memory(self) -> dict[str, float]:
        """Return what the dynamics must remember besides positions and momenta."""


@dataclass
class SplitDynamics:
    """B A O A B; without a bath, velocity Verlet."""

    atoms: Atoms
    timestep: float
    """ASE units."""
    rng: np.random.Generator
    bath: Bath | None = None
    heat: float = 0.0

    def step(self) -> None:
        """Go one time step ahead."""
        half = 0.5 * self.timestep
        kick(self.atoms, half)
        drift(self.atoms, half)
        if self.bath is not None:
            before = self.atoms.get_kinetic_energy()
            self.bath(self.atoms, self.timestep, self.rng)
            self.heat += float(self.atoms.get_kinetic_energy() - before)
        drift(self.atoms, half)
        kick(self.atoms, half)

    def advance(self, n_steps: int) -> int:
        """Go one time step ahead."""
        self.step()
        return 1

    def memory(self) -> dict[str, float]:
        """Return the heat exchanged so far."""
        return {"heat": self.heat}


def kick(atoms: Atoms, time: float) -> None:
    """Change momenta by forces over a time in ASE units, in place."""
    atoms.set_momenta(atoms.get_momenta() + time * atoms.get_forces(md=True))


def drift(atoms: Atoms, time: float) -> None:
    """Change positions by velocities over a time in ASE units, in place."""
    masses = atoms.get_masses()[:, None]
    momenta = atoms.get_momenta()
    free = atoms.positions + time * momenta / masses
    atoms.set_positions(free)
    if atoms.constraints:
        pulled = atoms.positions - free
        atoms.set_momenta(momenta + masses * pulled / time)


def langevin_bath(*, temperature_K: float, friction_per_ps: float) -> Bath:
    """Return p ← c p + √((1 − c²) m kT) R with c = exp(−γΔt) and R ~ N(0, 1)."""
    friction = friction_per_ps / (1000.0 * units.fs)

    def act(atoms: Atoms, time: float, rng: np.random.Generator) -> None:
        kept = np.exp(-friction * time)
        spread = np.sqrt(
            (1.0 - kept**2) * atoms.get_masses()[:, None] * units.kB * temperature_K
        )
        noise = rng.standard_normal((len(atoms), 3))
        atoms.set_momenta(kept * atoms.get_momenta() + spread * noise)

    return act


def bussi_bath(*, temperature_K: float, rate_per_ps: float, dof: int) -> Bath:
    """Return p ← α p with the stochastic α of Bussi et al., equation A7.

    With c = exp(−Δt/τ), K̄ = ½ dof kT and s² = (1 − c) K̄ / (dof K):
    α² = (√c + s R₁)² + s² Σ_{i=2}^{dof} R_i², and α has the sign of √c + s R₁.
    """
    rate = rate_per_ps / (1000.0 * units.fs)
    mean_energy = 0.5 * dof * units.kB * temperature_K

    def act(atoms: Atoms, time: float, rng: np.random.Generator) -> None:
        kept = np.exp(-rate * time)
        energy = atoms.get_kinetic_energy()
        first, rest = rng.standard_normal(), rng.chisquare(dof - 1) if dof > 1 else 0.0
        if energy == 0.0:
            return  # at rest there is no direction to scale
        spread = np.sqrt((1.0 - kept) * mean_energy / (dof * energy))
        along = np.sqrt(kept) + spread * first
        scale = np.sign(along) * np.sqrt(along**2 + spread**2 * rest)
        atoms.set_momenta(scale * atoms.get_momenta())

    return act


def degrees_of_freedom(atoms: Atoms, ensemble: Ensemble) -> int:
    """Return in how many directions the atoms can move, at a given total momentum.

    NVE and Bussi conserve the momentum of free atoms, and without periodicity their
    angular momentum too: these directions hold no heat. Langevin noise moves them.

    Raises:
        ConfigError: nothing can move, or a constraint cannot be counted.
    """
    try:
        count = int(atoms.get_number_of_degrees_of_freedom())
    except NotImplementedError as error:
        names = ", ".join(sorted({type(c).__name__ for c in atoms.constraints}))
        raise ConfigError(
            f"constraints of this structure ({names}) are not made for dynamics; use "
            "FixAtoms, FixCartesian, FixedPlane, FixedLine or FixBondLengths"
        ) from error
    if not atoms.constraints and ensemble in ("nve", "bussi"):
        count -= 3 + (0 if atoms.pbc.any() else _n_rotations(atoms))
    if count < 1:
        raise ConfigError(
            "no atom is free to move: nothing would happen; free some atoms"
        )
    return count


def temperature(kinetic_energy: float, dof: int) -> float:
    """Return 2 E_kin / (k dof) in K."""
    return 2.0 * kinetic_energy / (units.kB * dof)


def draw_velocities(
    atoms: Atoms,
    *,
    temperature_K: float,
    ensemble: Ensemble,
    rng: np.random.Generator,
) -> None:
    """Give the atoms, in place, Maxwell-Boltzmann velocities of exactly this T.

    Scaled, because a dozen atoms drawn for 300 K may well come out at 200 K.
    """
    dof = degrees_of_freedom(atoms, ensemble)
    masses = atoms.get_masses()[:, None]
    noise = rng.standard_normal((len(atoms), 3))
    atoms.set_momenta(np.sqrt(masses * units.kB * temperature_K) * noise)
    if not atoms.constraints and ensemble in ("nve", "bussi"):
        Stationary(atoms)
        if not atoms.pbc.any():
            ZeroRotation(atoms)
    drawn = temperature(atoms.get_kinetic_energy(), dof)
    if drawn > 0:
        atoms.set_momenta(atoms.get_momenta() * np.sqrt(temperature_K / drawn))


def _n_rotations(atoms: Atoms) -> int:
    """Return how many rotations move atoms: 0 for one, 2 on a line, else 3."""
    arms = atoms.positions - atoms.get_center_of_mass()
    spread = np.linalg.svd(arms, compute_uv=False)
    flat = int((spread > 1e-4).sum())
    return {0: 0, 1: 2}.get(flat, 3)


def build_dynamics(
    atoms: Atoms,
    settings: MDSettings,
    rng: np.random.Generator,
    dof: int,
    memory: Mapping[str, float],
    *,
    max_temperature_K: float = np.inf,
) -> Integrator:
    """Return the dynamics of an ensemble, with what it remembers.

    Args:
        atoms: with their calculator.
        settings: ensemble, temperature, time step.
        rng: of the bath.
        dof: degrees of freedom that hold heat.
        memory: what `Integrator.memory` has returned, or nothing.
        max_temperature_K: above which steps are taken one by one.
    """
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
    host = SplitDynamics(atoms, settings.timestep_fs * units.fs, rng, bath, **memory)
    carrier = carrier_for(atoms, settings, dof, max_temperature_K)
    return host if carrier is None else SplitDynamicsOnDevice(host, carrier)
