"""Phonons of a crystal, from relaxation to files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.io.trajectory import Trajectory

from crack_md.files import (
    atomic_path,
    claim_folder,
    csv_bytes,
    keep_conditions,
    package_versions,
    remove_temporaries,
    write_atomically,
    write_json,
)
from crack_md.progress import Report
from crack_md.structures import structure_sha256
from crack_md.workflows.notebook import html_facts
from crack_md.workflows.phonons.crystal import (
    analyse,
    compute_forces,
    displace_supercells,
    load_phonopy,
)
from crack_md.workflows.phonons.settings import Phonons, PhononSettings
from crack_md.workflows.relax.relax import RelaxSettings, relax_atoms

RELAXED_FILE = "relaxed.traj"
RESIDUAL_FORCE = 0.01
"""eV/Å; above this a structure is no minimum, and its phonons mean little."""


@dataclass(frozen=True, eq=False)
class PhononResult:
    """Phonons of a crystal and where they were computed."""

    atoms: Atoms
    phonons: Phonons
    summary: dict[str, Any]

    def _repr_html_(self) -> str:
        """Return the numbers of the crystal, as a table for a notebook."""
        plain = {k: v for k, v in self.summary.items() if isinstance(v, str | float)}
        unstable = len(self.phonons.imaginary)
        return html_facts({**plain, "imaginary modes": unstable})


def run_phonons(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    settings: PhononSettings,
    folder: Path,
    relaxation: RelaxSettings | None = None,
    provenance: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    report: Report | None = None,
) -> PhononResult:
    """Return the phonons of a crystal; phonons.json and phonopy's files hold them.

    Forces that the folder has already are not computed again.

    Args:
        atoms: the crystal; any cell, the primitive one is found.
        calculator: in float64, where it can be: forces are differentiated.
        settings: supercell, displacement, path and mesh.
        folder: for all files.
        relaxation: how to relax the crystal first; None to take it as it is.
        provenance: what else decides the numbers, such as the model.
        notes: what should be known about the model; the summary repeats them.
        report: called after every supercell.

    Raises:
        MissingDependencyError: phonopy is not installed.
        StructureError: not a crystal, or the model fails on it.
        DataError: the folder cannot be written, is in use, or holds another result.
    """
    load_phonopy()
    settings.repeats(atoms)
    conditions = {
        **settings.conditions(),
        "relaxation": None if relaxation is None else relaxation.conditions(),
        "structure_sha256": structure_sha256(atoms),
        **(provenance or {}),
    }
    with claim_folder(folder):
        known = [folder / "forces", folder / RELAXED_FILE]
        has_results = any(path.exists() for path in known)
        keep_conditions(folder, conditions, has_results=has_results)
        remove_temporaries(folder / "forces")
        crystal, rest = _relax_crystal(atoms, calculator, relaxation, folder)
        phonon, supercells = displace_supercells(crystal, settings=settings)
        forces = compute_forces(
            supercells, calculator, folder=folder / "forces", report=report
        )
        phonons = analyse(phonon, forces, settings=settings)
        summary = {
            "formula": crystal.get_chemical_formula(mode="metal"),
            "supercell": phonons.repeats,
            "supercell_atoms": len(supercells[0]),
            "n_displacements": len(supercells),
            **rest,
            **_numbers(phonons),
            "notes": list(notes),
            "settings": conditions,
            "versions": package_versions(),
        }
        _write_files(folder, phonon, phonons, summary)
    return PhononResult(crystal, phonons, summary)


def _relax_crystal(
    atoms: Atoms,
    calculator: BaseCalculator,
    relaxation: RelaxSettings | None,
    folder: Path,
) -> tuple[Atoms, dict[str, Any]]:
    """Return the crystal to displace, and what is left of forces and stress."""
    path = folder / RELAXED_FILE
    if relaxation is None:
        crystal = atoms.copy()
        crystal.calc = calculator
        largest = float(np.linalg.norm(crystal.get_forces(), axis=1).max())
        return atoms.copy(), {"relaxed": False, "max_force_eV_per_A": largest}
    if not path.exists():
        result = relax_atoms(atoms, calculator, settings=relaxation, with_stress=True)
        with atomic_path(path) as temporary:
            ase.io.write(temporary, result.atoms, format="traj")
    with Trajectory(path) as file:
        crystal = file[0]
    largest = float(np.linalg.norm(crystal.get_forces(), axis=1).max())
    rest = {"relaxed": True, "max_force_eV_per_A": largest}
    stress = crystal.calc.results.get("stress")
    if stress is not None:
        rest["max_stress_GPa"] = float(np.abs(stress).max() / units.GPa)
    rest["cell_A"] = crystal.cell.array.tolist()
    return crystal, rest


def _numbers(phonons: Phonons) -> dict[str, Any]:
    thermal = phonons.thermal
    room = int(np.abs(thermal.temperature_K - 300.0).argmin())
    return {
        "force_constant_asymmetry": phonons.asymmetry,
        "sum_rule_eV_per_A2": phonons.sum_rule_eV_per_A2,
        "max_frequency_THz": phonons.max_frequency,
        "min_frequency_THz": phonons.min_frequency,
        "zero_point_energy_eV": thermal.zero_point_energy_eV,
        "n_atoms_primitive": phonons.n_atoms,
        "at_K": float(thermal.temperature_K[room]),
        "free_energy_eV": float(thermal.free_energy_eV[room]),
        "entropy_eV_per_K": float(thermal.entropy_eV_per_K[room]),
        "heat_capacity_eV_per_K": float(thermal.heat_capacity_eV_per_K[room]),
        "imaginary_modes": [asdict(mode) for mode in phonons.imaginary],
    }


def _write_files(
    folder: Path, phonon: Any, phonons: Phonons, summary: dict[str, Any]
) -> None:
    bands = [
        {
            "labels": segment.labels,
            "q": segment.q,
            "distance_per_A": segment.distance,
            "frequency_THz": segment.frequency_THz,
        }
        for segment in phonons.segments
    ]
    write_json(folder / "phonons.json", {**summary, "bands": bands})
    density, thermal = asdict(phonons.density), asdict(phonons.thermal)
    del thermal["zero_point_energy_eV"]
    for name, columns in (("dos.csv", density), ("thermal.csv", thermal)):
        rows = [
            dict(zip(columns, map(float, values), strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
        write_atomically(folder / name, csv_bytes(rows))
    kept = {"force_sets": True, "force_constants": True, "displacements": True}
    with atomic_path(folder / "phonopy_params.yaml") as temporary:
        phonon.save(str(temporary), settings=kept)
