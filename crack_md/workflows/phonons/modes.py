"""Vibrations of chosen atoms with all others fixed: adsorbates on a surface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from jaxtyping import Bool, Float

from crack_md.errors import StructureError
from crack_md.files import claim_folder, keep_conditions, package_versions, write_json
from crack_md.structures import NONMETALS, structure_sha256
from crack_md.workflows.relax.relax import RelaxSettings, relax_atoms
from crack_md.workflows.surfaces.slab import heights

MODES_FILE = "modes.json"
DISPLACEMENT_A = 0.01
EV_PER_ROOT = units._hbar * 1e10 / np.sqrt(units._e * units._amu)
"""ħ√(eV/Å²/u) in eV."""


@dataclass(frozen=True, eq=False)
class LocalModes:
    """Normal modes of the chosen atoms."""

    indices: tuple[int, ...]
    energy_eV: Float[np.ndarray, " mode"]
    """ħω, negative for imaginary modes; ascending."""
    vectors: Float[np.ndarray, "mode atom 3"]
    """Displacements, not weighted by mass, of length 1."""
    asymmetry: float
    """‖H − Hᵀ‖ / ‖H‖ before the Hessian is symmetrised."""
    max_force_eV_per_A: float
    """On the chosen atoms where they were displaced from."""

    @property
    def wavenumber(self) -> Float[np.ndarray, " mode"]:
        """Return the frequencies in cm⁻¹, negative for imaginary ones."""
        return np.asarray(self.energy_eV / units.invcm)

    @property
    def zero_point_energy(self) -> float:
        """Return ½ Σ ħω of the real modes in eV."""
        return float(0.5 * self.energy_eV[self.energy_eV > 0].sum())

    def as_dict(self) -> dict[str, Any]:
        """Return the modes ready for JSON."""
        return {
            "atoms": list(self.indices),
            "frequency_per_cm": self.wavenumber.tolist(),
            "energy_meV": (1000.0 * self.energy_eV).tolist(),
            "n_imaginary": int((self.energy_eV < 0).sum()),
            "zero_point_energy_eV": self.zero_point_energy,
            "hessian_asymmetry": self.asymmetry,
            "max_force_eV_per_A": self.max_force_eV_per_A,
            "vectors": self.vectors.tolist(),
        }


def adsorbate_atoms(atoms: Atoms) -> tuple[int, ...]:
    """Return the atoms of an adsorbate: tagged 2 as in OC20, or nonmetals on one side.

    Sides are those along the normal of the cell, wherever it points in space.

    Raises:
        StructureError: there are none.
    """
    tags = atoms.get_tags()
    if set(tags) == {0, 1, 2}:
        return tuple(int(index) for index in np.flatnonzero(tags == 2))
    metals = ~np.isin(atoms.numbers, sorted(NONMETALS))
    height = heights(atoms)
    for upward in (height, -height):
        foreign = _foreign_on_top(atoms, upward)
        if foreign.any() and metals.any():
            return tuple(int(index) for index in np.flatnonzero(foreign))
    raise StructureError(
        "no adsorbate found: no atoms have tag 2 beside tags 0 and 1, and there "
        "are no nonmetals on one side of a metal alone; set OC20's tags"
    )


def _foreign_on_top(
    atoms: Atoms, height: Float[np.ndarray, " atom"]
) -> Bool[np.ndarray, " atom"]:
    """Return which atoms of the upper half are nonmetals that the lower one lacks."""
    low = height < 0.5 * (height.min() + height.max())
    return np.isin(atoms.numbers, sorted(NONMETALS - set(atoms.numbers[low]))) & ~low


def local_modes(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    indices: Sequence[int],
    displacement_A: float = DISPLACEMENT_A,
) -> LocalModes:
    """Return the modes of some atoms by central differences of their forces.

    All others stand still, as is usual for an adsorbate that is much lighter than the
    surface: six force calls per atom.

    Args:
        atoms: at a minimum of the model.
        calculator: any; in float64 where it can be.
        indices: atoms that vibrate.
        displacement_A: how far they are moved.
    """
    chosen = [int(index) for index in indices]
    moved = atoms.copy()
    moved.set_constraint()
    moved.calc = calculator
    at_rest = moved.get_forces()[chosen]
    hessian = np.empty((3 * len(chosen), 3 * len(chosen)))
    for row, (index, axis) in enumerate((i, x) for i in chosen for x in range(3)):
        sides = []
        for sign in (1, -1):
            moved.positions = atoms.positions
            moved.positions[index, axis] += sign * displacement_A
            sides.append(moved.get_forces()[chosen].ravel())
        hessian[row] = (sides[1] - sides[0]) / (2 * displacement_A)
    asymmetry = np.linalg.norm(hessian - hessian.T) / np.linalg.norm(hessian)
    weights = np.repeat(atoms.get_masses()[chosen] ** -0.5, 3)
    dynamical = weights[:, None] * 0.5 * (hessian + hessian.T) * weights
    squares, vectors = np.linalg.eigh(dynamical)
    shapes = (weights[:, None] * vectors).T
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True)
    return LocalModes(
        tuple(chosen),
        np.sign(squares) * np.sqrt(np.abs(squares)) * EV_PER_ROOT,
        shapes.reshape(len(squares), len(chosen), 3),
        float(asymmetry),
        float(np.linalg.norm(at_rest, axis=1).max()),
    )


def run_adsorbate_modes(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    folder: Path,
    displacement_A: float = DISPLACEMENT_A,
    relaxation: RelaxSettings | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the modes of the adsorbate on a slab; modes.json says the same.

    Args:
        atoms: slab and adsorbate.
        calculator: any; in float64 where it can be.
        folder: for modes.json.
        displacement_A: how far each atom is moved.
        relaxation: how to relax all free atoms first; None to take them as they are.
        provenance: what else decides the numbers, such as the model.

    Raises:
        StructureError: there is no adsorbate.
        DataError: the folder cannot be written, is in use, or holds another result.
    """
    chosen = adsorbate_atoms(atoms)
    conditions = {
        "displacement_A": displacement_A,
        "relaxation": None if relaxation is None else relaxation.conditions(),
        "structure_sha256": structure_sha256(atoms),
        **(provenance or {}),
    }
    with claim_folder(folder):
        has_results = (folder / MODES_FILE).exists()
        keep_conditions(folder, conditions, has_results=has_results)
        if relaxation is not None:
            atoms = relax_atoms(atoms, calculator, settings=relaxation).atoms
        modes = local_modes(
            atoms, calculator, indices=chosen, displacement_A=displacement_A
        )
        summary = {
            "formula": atoms.get_chemical_formula(mode="metal"),
            "symbols": [str(atoms.symbols[index]) for index in chosen],
            **modes.as_dict(),
            "settings": conditions,
            "versions": package_versions(),
        }
        write_json(folder / MODES_FILE, summary)
    return summary
