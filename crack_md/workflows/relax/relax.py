"""Relaxation with any ASE calculator and optimizer: positions, cell, symmetry."""

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import ase.optimize
import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, covalent_radii
from ase.io.trajectory import Trajectory
from ase.optimize.ode import ODE12r
from ase.optimize.optimize import Optimizer

from crack_md.errors import ConfigError, StructureError
from crack_md.workflows.model_info import domain_distance
from crack_md.workflows.relax.cell import Cell, cell_filter, hold_symmetry

FORCE_FALL = 0.95
"""What counts as progress: the smallest force so far shrinks by 5 %,"""
ENERGY_FALL_EV = 1e-3
"""or the lowest energy so far sinks by a millielectronvolt."""


class StallWatch:
    """Remembers the frame of lowest energy, and for how long nothing got better.

    Quasi-Newton steps can circle for hundreds of steps on a saddle, such as an atom
    exactly on top of another, whose curvature is negative; FIRE goes downhill there.

    Args:
        patience: steps without progress in force and energy that make a stall; None
            never sees one.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self._positions: np.ndarray | None = None
        self._cell: np.ndarray | None = None
        self._lowest = np.inf
        self._energy_mark = np.inf
        self._force_mark = np.inf
        self._waited = 0

    def sees_stall(self, moving: Atoms, energy: float, largest_force: float) -> bool:
        """Return whether nothing got better for so long, this frame included.

        Args:
            moving: where the optimizer is.
            energy: eV, with the work against a pressure.
            largest_force: eV/Å, on a free atom.
        """
        if self.patience is None:
            return False
        if energy < self._lowest:
            self._lowest = energy
            self._positions = moving.positions.copy()
            self._cell = moving.cell.array.copy()
        better = largest_force < FORCE_FALL * self._force_mark
        better |= energy < self._energy_mark - ENERGY_FALL_EV
        if better:
            self._force_mark = min(self._force_mark, largest_force)
            self._energy_mark = min(self._energy_mark, energy)
        self._waited = 0 if better else self._waited + 1
        return self._waited >= self.patience

    def go_back(self, moving: Atoms) -> None:
        """Put the atoms, in place, where the energy was lowest."""
        if self._positions is not None and self._cell is not None:
            moving.set_cell(self._cell)
            # no constraint may correct what was there already
            moving.set_positions(self._positions, apply_constraint=False)


MAXSTEP_A = 0.1
"""Half of ASE's default: an adsorbate must not jump over a 0.8 Å wide basin."""
DEFAULT_OPTIMIZER = "LBFGS"
FALLBACK_OPTIMIZER = "FIRE"
STALL_STEPS = 30
"""Without progress in force and energy for so long, the fallback takes over."""
PLATEAU_STEPS = 60
"""Direct forces that have not fallen for so long will not fall any more."""
PLATEAU_FALL = 0.95
"""What counts as falling: the smallest force so far must shrink by 5 %."""
PLATEAU_FMAX = 0.1
"""eV/Å, largest force of a plateau whose energy still counts."""


@dataclass(frozen=True)
class RelaxSettings:
    """How structures are relaxed.

    Raises:
        ConfigError: no such optimizer or cell.
    """

    optimizer: str = DEFAULT_OPTIMIZER
    """Name of a class in ``ase.optimize``."""
    fmax: float = 0.03
    """eV/Å that no force on a free atom may exceed at the end."""
    steps: int = 300
    """Most steps of the optimizer."""
    maxstep: float = MAXSTEP_A
    """Å that an atom may move in a step, for optimizers that have such a limit; line
    searches of ASE take it for each trial."""
    cell: Cell = "none"
    pressure_GPa: float = 0.0
    symmetry: bool = False
    symmetry_tolerance_A: float = 0.01
    plateau_steps: int | None = None
    """Give up when the smallest force has not fallen for so many steps: forces that
    are no gradient may have no zero. None never gives up."""
    stall_steps: int | None = STALL_STEPS
    """Go on with FIRE from the frame of lowest energy when neither the force nor the
    energy got better for so many steps; once, and not where forces may plateau. None
    keeps the optimizer."""

    def __post_init__(self) -> None:
        """Refuse what ASE does not have."""
        optimizer_named(self.optimizer)
        if self.cell not in get_args(Cell):
            raise ConfigError(
                f"cell is {self.cell!r}; expected one of {', '.join(get_args(Cell))}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings; without ``plateau_steps`` where nothing gives up."""
        # folders of earlier versions, which did not have it, go on
        kept = asdict(self)
        if self.plateau_steps is None:
            del kept["plateau_steps"]
        return kept

    def conditions(self) -> dict[str, Any]:
        """Return what two runs must share for one to continue the other."""
        return {"command": "relax", **self.as_dict()}


@dataclass(frozen=True)
class RelaxResult:
    """Where a relaxation ended."""

    atoms: Atoms
    """Carries energy, forces and, where asked for, stress."""
    energy: float
    """eV, whatever the calculator's zero is."""
    max_force: float
    """eV/Å, largest force on a free atom."""
    n_steps: int
    converged: bool
    plateau: bool = False
    """Whether it was given up because forces no longer fell; ``atoms`` is then the
    frame of the smallest forces."""
    domain_distance: float | None = None
    """How near atoms are at the end, measured by training; above 1 is nearer."""
    stalled_at: int | None = None
    """Step after which FIRE went on because the optimizer got nowhere."""

    @property
    def status(self) -> str:
        """Return ``converged``, ``plateau`` or ``not_converged``."""
        if self.converged:
            return "converged"
        return "plateau" if self.plateau else "not_converged"


def is_settled(status: str, max_force: float | None) -> bool:
    """Return whether an energy is that of a minimum, as far as forces can tell.

    The one rule for ranking, re-scoring and calibration: a converged relaxation, or a
    plateau whose largest force is at most 0.1 eV/Å.
    """
    small = max_force is not None and max_force <= PLATEAU_FMAX
    return status == "converged" or (status == "plateau" and small)


def optimizer_named(name: str) -> type[Optimizer]:
    """Return an optimizer of ``ase.optimize``.

    Raises:
        ConfigError: ASE has none of that name that can be watched at every step.
    """
    known = {
        key: value
        for key, value in vars(ase.optimize).items()
        if inspect.isclass(value)
        and issubclass(value, Optimizer)
        # The first needs a cell of its own kind, the second cannot be watched.
        and not issubclass(value, ase.optimize.CellAwareBFGS | ODE12r)
    }
    if name not in known:
        raise ConfigError(
            f"unknown optimizer '{name}'; expected one of: {', '.join(sorted(known))}"
        )
    return known[name]


def require_stress(calculator: BaseCalculator, cell: Cell) -> None:
    """Refuse to relax a cell without stress.

    Raises:
        ConfigError: the calculator has none.
    """
    if cell != "none" and "stress" not in calculator.implemented_properties:
        raise ConfigError(
            f"cell '{cell}' needs stress, and this model has none: its forces are "
            "direct, not the gradient of an energy; relax with cell 'none'"
        )


def relax_atoms(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    settings: RelaxSettings | None = None,
    trajectory: Path | None = None,
    with_stress: bool = False,
) -> RelaxResult:
    """Return ``atoms`` relaxed; the input is not changed.

    With a cell, convergence means the gradient of the strain as well (ASE's cell
    filter).

    Args:
        atoms: where to start.
        calculator: of energies and forces.
        settings: optimizer, limits, cell.
        trajectory: a file for every step.
        with_stress: keep the stress of the end, where the model has it; with a cell it
            is always kept.

    Raises:
        StructureError: the cell cannot relax, or the calculator returned an energy or
            force that is not finite.
    """
    chosen = settings or RelaxSettings()
    moving = atoms.copy()
    if chosen.symmetry:
        hold_symmetry(moving, tolerance_A=chosen.symmetry_tolerance_A)
    moving.calc = calculator
    watch = _PlateauWatch(chosen.plateau_steps)
    with ExitStack() as stack:
        file = None
        if trajectory is not None:
            file = stack.enter_context(Trajectory(trajectory, "w", moving))
        converged, n_steps, stalled_at = _optimize(moving, chosen, watch, file)
    plateau = watch.gave_up and not converged
    if plateau and watch.best is not None:
        final, largest = watch.best, _largest_force(watch.best)
    else:
        moving.set_constraint(atoms.constraints)
        largest = _largest_force(moving)  # symmetry hides forces that break it
        keeps_stress = with_stress or chosen.cell != "none"
        final = _with_results(moving, with_stress=keeps_stress)
    return RelaxResult(
        atoms=final,
        energy=float(final.get_potential_energy()),
        max_force=largest,
        n_steps=n_steps,
        converged=converged,
        plateau=plateau,
        domain_distance=domain_distance(calculator),
        stalled_at=stalled_at,
    )


def _optimize(
    moving: Atoms, settings: RelaxSettings, watch: "_PlateauWatch", file: Any
) -> tuple[bool, int, int | None]:
    """Relax in place; return whether it converged, all steps, and where it stalled."""
    falls_back = settings.plateau_steps is None
    falls_back &= settings.optimizer != FALLBACK_OPTIMIZER
    stall = StallWatch(settings.stall_steps if falls_back else None)
    pressure = settings.pressure_GPa * units.GPa if settings.cell != "none" else 0.0
    n_steps, stalled_at, converged = 0, None, False
    for name in (settings.optimizer, FALLBACK_OPTIMIZER):
        optimizer = _build_optimizer(moving, replace(settings, optimizer=name))
        optimizer.attach(lambda: require_finite(moving))
        if file is not None:
            optimizer.attach(file)
        steps = settings.steps - n_steps
        for converged in optimizer.irun(fmax=settings.fmax, steps=steps):
            if converged or watch.sees_plateau(moving):
                break
            if stalled_at is None and stall.sees_stall(
                moving, _enthalpy(moving, pressure), _largest_force(moving)
            ):
                stalled_at = optimizer.nsteps
                break
        n_steps += optimizer.nsteps
        if converged or stalled_at is None or n_steps >= settings.steps:
            break
        if name == settings.optimizer:
            stall.go_back(moving)
    return bool(converged), n_steps, stalled_at


def _enthalpy(atoms: Atoms, pressure: float) -> float:
    energy = float(atoms.get_potential_energy())
    return energy + (pressure * atoms.get_volume() if pressure else 0.0)


class _PlateauWatch:
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
            self._smallest, self.best = largest, _with_results(moving)
        if largest < PLATEAU_FALL * self._mark:
            self._mark, self._waited = largest, 0
        else:
            self._waited += 1
        self.gave_up = self._waited >= self.patience
        return self.gave_up


def _build_optimizer(moving: Atoms, settings: RelaxSettings) -> Optimizer:
    target: Any = moving
    if settings.cell != "none":
        target = cell_filter(moving, settings.cell, pressure_GPa=settings.pressure_GPa)
    kind = optimizer_named(settings.optimizer)
    # RFO and LBFGSLineSearch hand the limit on to a parent class
    takes_maxstep = any(
        "maxstep" in inspect.signature(parent).parameters
        for parent in kind.__mro__
        if issubclass(parent, Optimizer)
    )
    options = {"maxstep": settings.maxstep} if takes_maxstep else {}
    return kind(target, logfile=None, **options)  # type: ignore[arg-type]


def _with_results(moving: Atoms, *, with_stress: bool = False) -> Atoms:
    """Return a copy that carries what the model says now, without the model."""
    final = moving.copy()
    results: dict[str, Any] = {
        "energy": float(moving.get_potential_energy()),
        "forces": moving.get_forces(apply_constraint=False),
    }
    has_volume = abs(float(moving.cell.volume)) > 0
    known = getattr(moving.calc, "implemented_properties", ())
    if with_stress and has_volume and "stress" in known:
        results["stress"] = moving.get_stress(apply_constraint=False)
    final.calc = SinglePointCalculator(final, **results)
    return final


def _largest_force(atoms: Atoms) -> float:
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max(initial=0.0))


def measured_fcc_constant(symbol: str) -> float:
    """Return (4 V)^(1/3) in Å, V the measured volume per atom of an element.

    That is the lattice constant of fcc metals, and about that of an fcc crystal of an
    hcp or bcc one. Others, such as Ga and Mn, are taken for spheres that touch.
    """
    try:
        known = bulk(symbol)
    except (ValueError, RuntimeError):  # no such crystal in ASE's tables
        return float(8**0.5 * covalent_radii[atomic_numbers[symbol]])
    return float((4 * known.get_volume() / len(known)) ** (1 / 3))


def relax_fcc_constant(symbol: str, calculator: BaseCalculator) -> float:
    """Return the lattice constant in Å that minimises the energy of an fcc crystal."""
    return best_constant(
        lambda a: bulk(symbol, "fcc", a=a), measured_fcc_constant(symbol), calculator
    )


MOST_STEPS = 8
"""Of a search for a lattice constant, each up to 8 % wide at first."""


def best_constant(
    build: Callable[[float], Atoms], expected: float, calculator: BaseCalculator
) -> float:
    """Return the lattice constant in Å that minimises the energy of a crystal.

    Args:
        build: makes the crystal from its lattice constant.
        expected: where to begin, Å.
        calculator: of energies.

    Raises:
        StructureError: the energy still falls where the search has to end.
    """

    def energy(constant: float) -> float:
        crystal = build(constant)
        crystal.calc = calculator
        return float(crystal.get_potential_energy())

    best, is_inside = expected, False
    for width in (0.04, 0.01, 0.002):
        for _ in range(MOST_STEPS):
            constants = best * (1.0 + width * np.array([-1.0, 0.0, 1.0]))
            curve = np.polyfit(constants - best, [energy(a) for a in constants], 2)
            # A parabola turned upside down, or a minimum far outside, is not trusted.
            most = 2 * width * best
            fall = -np.sign(curve[1]) * most
            downhill = -curve[1] / (2 * curve[0]) if curve[0] > 0 else fall
            best += float(np.clip(downhill, -most, most))
            is_inside = abs(downhill) < most
            if is_inside:
                break
    if not is_inside:
        raise StructureError(
            f"no lattice constant of lowest energy near {expected:.2f} Å: the energy "
            f"still falls at {best:.2f} Å; the model may not know such a crystal"
        )
    return best


def require_finite(atoms: Atoms) -> None:
    """Raise StructureError where the model has no number for these atoms."""
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise StructureError(
            "the model returned an energy or force that is not finite (NaN or "
            "infinity); the structure is outside what the model can describe"
        )
