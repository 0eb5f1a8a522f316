"""Lattice, elastic constants and vacancies of fcc metals by one model."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import BaseCalculator
from ase.units import GPa

from benchmarks.targets.record import Check, Details, Subjects, knows
from crack_md.workflows.relax.relax import (
    RelaxSettings,
    relax_atoms,
    relax_fcc_constant,
)

METALS = ("Pt", "Pd", "Cu")
STRAINS = 0.01 * np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
SHEARS = np.array([0.0, 0.01, 0.02])
VACANCY_TARGET_EV, C44_TARGET_PERCENT = 0.15, 15.0


@dataclass(frozen=True)
class BulkProperties:
    """What an fcc crystal resists."""

    lattice_constant_A: float
    bulk_modulus_GPa: float
    c44_GPa: float
    vacancy_eV: float
    """Formation energy in 2x2x2 cubic cells at the lattice constant, relaxed."""


def bulk_properties(metal: str, calculator: BaseCalculator) -> BulkProperties:
    """Return the properties of an fcc metal at the model's own lattice constant.

    B = V d²E/dV², C44 from a shear that keeps the volume, ΔE = 2 V C44 x² + O(x⁴), and
    the vacancy from E(N − 1) − E(N) (N − 1)/N. No stress is asked for: teachers have
    none.
    """
    constant = relax_fcc_constant(metal, calculator)
    crystal = bulk(metal, "fcc", a=constant)
    return BulkProperties(
        constant,
        _bulk_modulus(crystal, calculator) / GPa,
        _shear_modulus(crystal, calculator) / GPa,
        _vacancy(bulk(metal, "fcc", a=constant, cubic=True) * (2, 2, 2), calculator),
    )


def compare_bulk(subjects: Subjects) -> tuple[list[Check], Details]:
    """Compare bulk metals with the source of the labels."""
    student, info = subjects.precise_student
    checks, details = [], {}
    for metal in METALS:
        if not knows(info, metal):
            checks.append(Check(f"{metal}: vacancy", None, "eV", VACANCY_TARGET_EV))
            continue
        mine = bulk_properties(metal, student)
        theirs = bulk_properties(metal, subjects.label_source[0])
        details[metal] = {"student": vars(mine), "source": vars(theirs)}
        vacancy = mine.vacancy_eV - theirs.vacancy_eV
        checks += [
            Check(f"{metal}: vacancy, error", vacancy, "eV", VACANCY_TARGET_EV),
            Check(
                f"{metal}: C44, error",
                percent_apart(mine.c44_GPa, theirs.c44_GPa),
                "%",
                C44_TARGET_PERCENT,
            ),
            Check(
                f"{metal}: B, error",
                percent_apart(mine.bulk_modulus_GPa, theirs.bulk_modulus_GPa),
                "%",
            ),
            Check(
                f"{metal}: a₀, error",
                mine.lattice_constant_A - theirs.lattice_constant_A,
                "Å",
            ),
        ]
    return checks, details


def percent_apart(value: float, reference: float) -> float:
    """Return how much larger a value is than its reference, in percent."""
    return 100.0 * (value / reference - 1.0)


def _energy(atoms: Atoms, calculator: BaseCalculator) -> float:
    atoms.calc = calculator
    return float(atoms.get_potential_energy())


def _deformed(crystal: Atoms, deformation: np.ndarray) -> Atoms:
    atoms = crystal.copy()
    atoms.set_cell(crystal.cell.array @ deformation, scale_atoms=True)
    return atoms


def _bulk_modulus(crystal: Atoms, calculator: BaseCalculator) -> float:
    """Return V d²E/dV² in eV/Å³; with V ∝ (1 + s)³ it is (d²E/ds²)/(9 V)."""
    stretched = [_deformed(crystal, np.eye(3) * (1 + strain)) for strain in STRAINS]
    energies = [_energy(atoms, calculator) for atoms in stretched]
    curvature = 2.0 * np.polyfit(STRAINS, energies, 4)[2]
    return float(curvature / (9.0 * crystal.get_volume()))


def _shear_modulus(crystal: Atoms, calculator: BaseCalculator) -> float:
    """Return C44 in eV/Å³; ±x are alike by symmetry, so the fit is in x²."""
    energies = []
    for x in SHEARS:
        shear = np.eye(3)
        shear[0, 1] = shear[1, 0] = x
        shear[2, 2] = 1.0 / (1.0 - x**2)
        energies.append(_energy(_deformed(crystal, shear), calculator))
    slope = np.polyfit(SHEARS**2, energies, 2)[1]
    return float(slope / (2.0 * crystal.get_volume()))


def _vacancy(crystal: Atoms, calculator: BaseCalculator) -> float:
    whole = _energy(crystal.copy(), calculator)
    vacant, settings = crystal[1:], RelaxSettings(fmax=0.01, steps=100)
    relaxed = relax_atoms(vacant, calculator, settings=settings).energy
    return relaxed - whole * len(vacant) / len(crystal)
