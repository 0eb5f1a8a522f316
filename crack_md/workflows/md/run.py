"""One run of molecular dynamics, from its first step or from its restart file."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.units import fs

from crack_md.errors import StructureError
from crack_md.files import claim_folder, keep_conditions
from crack_md.progress import Report
from crack_md.structures import structure_sha256
from crack_md.workflows.md.integrators import (
    degrees_of_freedom,
    require_pressure,
    temperature,
)
from crack_md.workflows.md.settings import MDSettings
from crack_md.workflows.md.simulation import RESTART_FILE, Simulation
from crack_md.workflows.md.summary import FINISHED, note_of_tiny_cell, write_summary
from crack_md.workflows.model_info import note_of_domain
from crack_md.workflows.notebook import html_facts

UNKNOWN_NAMES = ("velo", "vel", "velocity", "v")
"""Columns of other programs, each in its own unit."""


def with_momenta(atoms: Atoms) -> Atoms:
    """Return a copy whose column ``velocities`` has become momenta.

    The column is in ASE's unit, as ``Atoms.get_velocities`` returns it: Å (u/eV)^½⁻¹,
    which is 0.0982 Å/fs. ASE itself reads momenta only.

    Raises:
        StructureError: velocities that are not finite or disagree with momenta, or a
            column whose unit is anybody's guess.
    """
    moving = atoms.copy()
    unknown = [name for name in UNKNOWN_NAMES if moving.has(name)]
    if unknown and not moving.has("momenta") and not moving.has("velocities"):
        raise StructureError(
            f"the structure has a column '{unknown[0]}', whose unit is not known; "
            f"divide Å/fs by {fs:.6f} and call it 'velocities', or remove it to draw "
            "velocities anew"
        )
    if moving.has("velocities"):
        given = moving.arrays.pop("velocities")
        if given.shape != (len(moving), 3):
            raise StructureError(
                f"the column 'velocities' has the shape {given.shape}; expected three "
                "numbers for each atom"
            )
        momenta = given * moving.get_masses()[:, None]
        _require_agreement(moving, momenta)
        moving.set_momenta(momenta)
    if not np.isfinite(moving.get_momenta()).all():
        raise StructureError(
            "velocities of the structure are not finite (NaN or infinity); repair "
            "them, or remove them to draw them anew"
        )
    return moving


def _require_agreement(atoms: Atoms, momenta: np.ndarray) -> None:
    known = atoms.get_momenta()
    if known.any() and not np.allclose(known, momenta, rtol=1e-3, atol=1e-5):
        raise StructureError(
            "the structure has momenta and velocities that disagree; remove one of "
            "the two columns (velocities are those of ASE, in 0.0982 Å/fs)"
        )


@dataclass(frozen=True)
class MDResult:
    """How a run ended."""

    atoms: Atoms
    """The last good structure, with velocities."""
    status: str
    """``finished``, or what a stop rule says."""
    reason: str
    step: int
    summary: dict[str, Any]

    def _repr_html_(self) -> str:
        """Return how the run ended, as a table for a notebook."""
        means = self.summary["second_half"]
        reason = {"reason": self.reason, "step": self.step}
        notes = {"notes": "; ".join(self.summary["notes"])}
        return html_facts({"status": self.status, **reason, **means, **notes})


def run_dynamics(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    settings: MDSettings,
    folder: Path,
    provenance: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> MDResult:
    """Return the end of a run of ``settings.steps`` steps; its files are in ``folder``.

    A run that the folder has already begun goes on; the input is not changed.

    Args:
        atoms: where it starts. Velocities it brings are kept, else they are drawn;
            they may be momenta or a column ``velocities`` in ASE's unit.
        calculator: any ASE calculator.
        settings: ensemble, temperature, step and how often files are written.
        folder: thermo.csv, trajectory, restart.npz, settings.json and summary.json.
        provenance: what else must be equal for a run to go on, such as the model.
        report: called after every step, or after some that a device took at once.

    Raises:
        ConfigError: the ensemble is impossible for this structure or model.
        DataError: the folder cannot be written, is in use, or holds another run.
        StructureError: velocities that cannot be taken.
    """
    notes = _notes_of_start(atoms, settings)
    atoms = with_momenta(atoms)
    if settings.ensemble == "npt":
        require_pressure(atoms, calculator)
    conditions = {
        **settings.conditions(),
        "structure_sha256": structure_sha256(atoms),
        **(provenance or {}),
    }
    run = Simulation(atoms.copy(), calculator, settings, folder)
    with claim_folder(folder):
        has_begun = (folder / RESTART_FILE).exists()
        keep_conditions(folder, conditions, has_results=has_begun)
        start = time.monotonic()
        run.begin_or_resume()
        first = run.step
        stop = run.advance(report)
        status, reason = stop or (FINISHED, "")
        notes.append(note_of_domain(run.domain_distance))
        summary = write_summary(
            folder,
            run.last_good,
            settings=settings,
            conditions=conditions,
            end={
                "status": status,
                "reason": reason,
                "step": run.step,
                "domain_distance": run.domain_distance,
            },
            notes=[note for note in notes if note],
            cost={
                "steps_done_now": run.step - first,
                "seconds": round(time.monotonic() - start, 1),
            },
        )
    return MDResult(run.last_good, status, reason, run.step, summary)


def _notes_of_start(atoms: Atoms, settings: MDSettings) -> list[str]:
    """Return what is assumed of the start or odd about it; some may be empty."""
    notes = [note_of_tiny_cell(atoms)]
    moving = with_momenta(atoms)
    if not moving.get_momenta().any():
        return notes
    dof = degrees_of_freedom(moving, settings.ensemble)
    kelvin = f"{temperature(float(moving.get_kinetic_energy()), dof):.0f} K"
    if atoms.has("velocities"):
        notes.append(
            f"the column 'velocities' is taken to be in ASE's unit, 0.0982 Å/fs: "
            f"the run starts at {kelvin}"
        )
    if settings.initial_temperature_K is not None:
        notes.append(
            f"the structure brings velocities of {kelvin}, so that the initial "
            f"temperature of {settings.initial_temperature_K:g} K is not used"
        )
    return notes
