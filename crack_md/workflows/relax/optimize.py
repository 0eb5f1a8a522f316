"""Relaxation with any ASE optimizer: positions, cell, with or without symmetry."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import ase.optimize
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.io.trajectory import Trajectory
from ase.optimize.optimize import Optimizer

from crack_md.errors import ConfigError, StructureError
from crack_md.workflows.relax.relax import MAXSTEP_A, RelaxResult, require_finite

Cell = Literal["none", "isotropic", "full", "xy"]
CELL_FILTERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "isotropic": {"hydrostatic_strain": True},
        "full": {},
        "xy": {"mask": [True, True, False, False, False, True]},  # Voigt order
    }
)


@dataclass(frozen=True)
class RelaxSettings:
    """How structures are relaxed.

    Raises:
        ConfigError: no such optimizer or cell.
    """

    optimizer: str = "LBFGS"
    fmax: float = 0.03
    steps: int = 300
    maxstep: float = MAXSTEP_A
    cell: Cell = "none"
    pressure_GPa: float = 0.0
    symmetry: bool = False
    symmetry_tolerance_A: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what ASE does not have."""
        optimizer_class(self.optimizer)
        if self.cell not in get_args(Cell):
            raise ConfigError(
                f"cell is {self.cell!r}; expected one of {', '.join(get_args(Cell))}"
            )

    def conditions(self) -> dict[str, Any]:
        """Return what two runs must share for one to continue the other."""
        return {"command": "relax", **asdict(self)}


def optimizer_class(name: str) -> type[Optimizer]:
    """Return one of ASE's optimizers by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    known = {
        key: value
        for key, value in vars(ase.optimize).items()
        if inspect.isclass(value) and issubclass(value, Optimizer)
    }
    if name not in known:
        raise ConfigError(
            f"unknown optimizer {name!r}; ASE has {', '.join(sorted(known))}"
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


def optimize(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    settings: RelaxSettings,
    trajectory: Path | None = None,
) -> RelaxResult:
    """Return ``atoms`` relaxed; the input is not changed.

    The result's atoms carry energy, forces and, where the model has it, stress. With a
    cell, convergence means the gradient of the strain as well (ASE's cell filter).

    Raises:
        StructureError: the cell cannot relax, or the model returned no number.
    """
    moving = atoms.copy()
    if settings.symmetry:
        _require_periodic(moving, np.ones(3, dtype=bool), "symmetry")
        held = FixSymmetry(moving, symprec=settings.symmetry_tolerance_A)
        moving.set_constraint([*moving.constraints, held])
    moving.calc = calculator
    optimizer = _build_optimizer(moving, settings)
    optimizer.attach(lambda: require_finite(moving))
    if trajectory is None:
        converged = bool(optimizer.run(fmax=settings.fmax, steps=settings.steps))
    else:
        with Trajectory(trajectory, "w", moving) as file:
            optimizer.attach(file)
            converged = bool(optimizer.run(fmax=settings.fmax, steps=settings.steps))
    forces = moving.get_forces()
    moving.set_constraint(atoms.constraints)
    final = _with_results(moving)
    largest = float(np.linalg.norm(forces, axis=1).max(initial=0.0))
    return RelaxResult(
        final, final.get_potential_energy(), largest, optimizer.nsteps, converged
    )


def _build_optimizer(moving: Atoms, settings: RelaxSettings) -> Optimizer:
    target: Any = moving
    if settings.cell != "none":
        along = np.array([True, True, settings.cell != "xy"])
        _require_periodic(moving, along, f"cell '{settings.cell}'")
        target = FrechetCellFilter(
            moving,
            scalar_pressure=settings.pressure_GPa * units.GPa,
            **CELL_FILTERS[settings.cell],
        )
    kind = optimizer_class(settings.optimizer)
    options: dict[str, Any] = {"logfile": None}
    if "maxstep" in inspect.signature(kind.__init__).parameters:
        options["maxstep"] = settings.maxstep
    return kind(target, **options)


def _require_periodic(atoms: Atoms, along: np.ndarray, what: str) -> None:
    if not atoms.pbc[along].all():
        raise StructureError(
            f"{what} needs a structure that is periodic along "
            f"{'all' if along.all() else 'the first two'} cell vectors; its pbc is "
            f"{atoms.pbc.tolist()}"
        )


def _with_results(moving: Atoms) -> Atoms:
    """Return a copy that carries what the model says, without the model."""
    final = moving.copy()
    results: dict[str, Any] = {
        "energy": float(moving.get_potential_energy()),
        "forces": moving.get_forces(apply_constraint=False),
    }
    calculator = moving.calc
    has_volume = abs(float(moving.cell.volume)) > 0
    if has_volume and "stress" in getattr(calculator, "implemented_properties", ()):
        results["stress"] = moving.get_stress(apply_constraint=False)
    final.calc = SinglePointCalculator(final, **results)
    return final
