"""Relaxation of one structure with any ASE calculator."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, reference_states
from ase.optimize import LBFGS

from crack_md.errors import StructureError

MAXSTEP_A = 0.1
"""Half of ASE's default: an adsorbate must not jump over a 0.8 Å wide basin."""


@dataclass(frozen=True)
class RelaxResult:
    """Where a relaxation ended."""

    atoms: Atoms
    """Carries energy and forces in a SinglePointCalculator."""
    energy: float
    """eV, whatever the calculator's zero is."""
    max_force: float
    """eV/Å, largest force on a free atom."""
    n_steps: int
    converged: bool


def relax(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    fmax: float = 0.03,
    steps: int = 300,
    maxstep: float = MAXSTEP_A,
) -> RelaxResult:
    """Return ``atoms`` relaxed by LBFGS at fixed cell; the input is not changed.

    Raises:
        StructureError: the calculator returned an energy or force that is not finite.
    """
    moving = atoms.copy()
    moving.calc = calculator
    optimizer = LBFGS(moving, maxstep=maxstep, logfile=None)  # type: ignore[arg-type]
    optimizer.attach(lambda: require_finite(moving))
    converged = bool(optimizer.run(fmax=fmax, steps=steps))
    energy = float(moving.get_potential_energy())
    forces = moving.get_forces()
    final = moving.copy()
    final.calc = SinglePointCalculator(
        final, energy=energy, forces=moving.get_forces(apply_constraint=False)
    )
    largest = float(np.linalg.norm(forces, axis=1).max(initial=0.0))
    return RelaxResult(final, energy, largest, optimizer.nsteps, converged)


def relax_fcc_constant(symbol: str, calculator: BaseCalculator) -> float:
    """Return the lattice constant in Å that minimises the energy of an fcc crystal."""
    state: dict[str, Any] = dict(reference_states[atomic_numbers[symbol]] or {})
    expected = float(state["a"])

    def energy(constant: float) -> float:
        crystal = bulk(symbol, "fcc", a=constant)
        crystal.calc = calculator
        return float(crystal.get_potential_energy())

    best = expected
    for width in (0.04, 0.01, 0.002):
        constants = best * (1.0 + width * np.array([-1.0, 0.0, 1.0]))
        curve = np.polyfit(constants - best, [energy(a) for a in constants], 2)
        # A parabola turned upside down, or a minimum far outside, is not trusted.
        downhill = -curve[1] / (2 * curve[0]) if curve[0] > 0 else -np.sign(curve[1])
        best += float(np.clip(downhill, -2 * width * best, 2 * width * best))
    return best


def require_finite(atoms: Atoms) -> None:
    """Raise StructureError where the model has no number for these atoms."""
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise StructureError(
            "the model returned an energy or force that is not finite (NaN or "
            "infinity); the structure is outside what the model can describe"
        )
