"""Relaxation of one structure with any ASE calculator and optimizer."""

import inspect
from dataclasses import dataclass
from typing import Any

import ase.optimize
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, reference_states
from ase.optimize.ode import ODE12r
from ase.optimize.optimize import Optimizer

from crack_md.errors import ConfigError, StructureError

MAXSTEP_A = 0.1
"""Half of ASE's default: an adsorbate must not jump over a 0.8 Å wide basin."""
DEFAULT_OPTIMIZER = "LBFGS"
PLATEAU_STEPS = 60
"""Direct forces that have not fallen for so long will not fall any more."""
PLATEAU_FALL = 0.95
"""What counts as falling: the smallest force so far must shrink by 5 %."""


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
    plateau: bool = False
    """Whether it was given up because forces no longer fell; ``atoms`` is then the
    frame of the smallest forces."""

    @property
    def status(self) -> str:
        """Return ``converged``, ``plateau`` or ``not_converged``."""
        if self.converged:
            return "converged"
        return "plateau" if self.plateau else "not_converged"


def optimizer_named(name: str) -> type[Optimizer]:
    """Return an optimizer of ``ase.optimize``.

    Raises:
        ConfigError: ASE has none of that name that relaxes at a fixed cell.
    """
    known = {
        key: value
        for key, value in vars(ase.optimize).items()
        if inspect.isclass(value)
        and issubclass(value, Optimizer)
        # The first moves cells, the second steps by itself and cannot be watched.
        and not issubclass(value, ase.optimize.CellAwareBFGS | ODE12r)
    }
    if name not in known:
        raise ConfigError(
            f"unknown optimizer '{name}'; expected one of: {', '.join(sorted(known))}"
        )
    return known[name]


def relax(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    fmax: float = 0.03,
    steps: int = 300,
    maxstep: float = MAXSTEP_A,
    optimizer: str = DEFAULT_OPTIMIZER,
    plateau_steps: int | None = None,
) -> RelaxResult:
    """Return ``atoms`` relaxed at fixed cell; the input is not changed.

    Args:
        atoms: where to start.
        calculator: of energies and forces.
        fmax: eV/Å that no force on a free atom may exceed at the end.
        steps: most steps of the optimizer.
        maxstep: Å that an atom may move in a step, where the optimizer knows such.
        optimizer: name of a class in ``ase.optimize``.
        plateau_steps: give up when the smallest force has not fallen for so many
            steps: forces that are no gradient may have no zero. None never gives up.

    Raises:
        StructureError: the calculator returned an energy or force that is not finite.
    """
    moving = atoms.copy()
    moving.calc = calculator
    climber = _build_optimizer(optimizer, moving, maxstep)
    climber.attach(lambda: require_finite(moving))
    watch = _Watch(plateau_steps)
    converged = False
    for converged in climber.irun(fmax=fmax, steps=steps):
        if not converged and watch.sees_plateau(moving):
            break
    plateau = watch.gave_up and not converged
    final = watch.best if plateau and watch.best is not None else _frozen(moving)
    return RelaxResult(
        atoms=final,
        energy=float(final.get_potential_energy()),
        max_force=_largest_force(final),
        n_steps=climber.nsteps,
        converged=bool(converged),
        plateau=plateau,
    )


class _Watch:
    """Remembers the frame of smallest forces, and for how long they have not fallen."""

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.best: Atoms | None = None
        self.gave_up = False
        self._smallest = np.inf
        self._mark = np.inf
        self._waited = 0

    def sees_plateau(self, moving: Atoms) -> bool:
        """Return whether forces have stopped falling, this frame included."""
        if self.patience is None:
            return False
        largest = _largest_force(moving)
        if largest < self._smallest:
            self._smallest, self.best = largest, _frozen(moving)
        if largest < PLATEAU_FALL * self._mark:
            self._mark, self._waited = largest, 0
        else:
            self._waited += 1
        self.gave_up = self._waited >= self.patience
        return self.gave_up


def _build_optimizer(name: str, atoms: Atoms, maxstep: float) -> Any:
    found = optimizer_named(name)
    takes_maxstep = any(
        "maxstep" in inspect.signature(parent).parameters
        for parent in found.__mro__
        if issubclass(parent, Optimizer)
    )
    options = {"maxstep": maxstep} if takes_maxstep else {}
    return found(atoms, logfile=None, **options)  # type: ignore[arg-type]


def _frozen(moving: Atoms) -> Atoms:
    """Return a copy that carries the energy and forces of now."""
    final = moving.copy()
    final.calc = SinglePointCalculator(
        final,
        energy=float(moving.get_potential_energy()),
        forces=moving.get_forces(apply_constraint=False),
    )
    return final


def _largest_force(atoms: Atoms) -> float:
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max(initial=0.0))


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
