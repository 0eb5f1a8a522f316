"""Degrees of freedom, temperature and first velocities."""

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, ZeroRotation

from crack_md.errors import ConfigError
from crack_md.workflows.md.settings import Ensemble


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
