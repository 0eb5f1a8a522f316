"""Relaxation of many structures, one after the other; a failure is a row."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator

from crack_md.errors import DataError
from crack_md.files import (
    atomic_path,
    csv_bytes,
    is_full_disk,
    package_versions,
    write_atomically,
    write_json,
)
from crack_md.progress import ProgressEvent, Report
from crack_md.structures import StructureEntry
from crack_md.workflows.model_info import ModelInfo, note_of_domain
from crack_md.workflows.relax.relax import RelaxSettings, relax_atoms, require_stress
from crack_md.workflows.relax.store import (
    RelaxationRecord,
    ResultsStore,
    relaxation_key,
)
from crack_md.workflows.surfaces.slab import SlabError, check_structure

RELAXED = ("converged", "not_converged")


class Relaxed(NamedTuple):
    """One structure: what became of it, and where it ended."""

    name: str
    record: RelaxationRecord
    atoms: Atoms | None
    """Carries energy, forces and stress; None without a result."""


def relax_all(
    entries: Sequence[StructureEntry],
    calculator: BaseCalculator,
    *,
    model: ModelInfo,
    store: ResultsStore,
    settings: RelaxSettings,
    trajectories: Path,
    report: Report | None = None,
) -> tuple[Relaxed, ...]:
    """Return what became of every structure, in the order given.

    Those the store already has are not repeated. Trajectories of the others are
    written into a folder, numbered and named as the input.

    Raises:
        ConfigError: the cell should relax, and the model has no stress.
        DataError: results cannot be written.
    """
    require_stress(calculator, settings.cell)
    trajectories.mkdir(parents=True, exist_ok=True)
    relaxed = []
    for number, entry in enumerate(entries, start=1):
        path = trajectories / f"{number:04d}-{file_name_of(entry.name)}.traj"
        result, reused = _relax_entry(entry, calculator, model, store, settings, path)
        relaxed.append(result)
        if report is not None:
            status = result.record.status
            report(ProgressEvent(number, len(entries), entry.name, status, reused))
    return tuple(relaxed)


def _relax_entry(
    entry: StructureEntry,
    calculator: BaseCalculator,
    model: ModelInfo,
    store: ResultsStore,
    settings: RelaxSettings,
    trajectory: Path,
) -> tuple[Relaxed, bool]:
    refusal = _refusal(entry, model)
    if refusal is not None or entry.atoms is None:
        status, error = refusal or ("unreadable", entry.error)
        record = RelaxationRecord("", entry.name, "", status, error=error)
        return Relaxed(entry.name, record, None), False
    key = relaxation_key(entry.atoms, "", store.conditions)
    known = store.record(key)
    if known is None:
        record, final = _relax(entry, calculator, settings, key, trajectory)
        store.put(record, final)
    record = known or record
    atoms = store.atoms(key) if record.status in RELAXED else None
    return Relaxed(entry.name, record, atoms), known is not None


def _refusal(entry: StructureEntry, model: ModelInfo) -> tuple[str, str] | None:
    """Return status and reason where a structure need not be tried."""
    if entry.atoms is None:
        return "unreadable", entry.error
    try:
        check_structure(entry.atoms)
    except SlabError as error:
        return error.status, str(error)
    refusal = model.refusal(entry.atoms.symbols)
    return ("unknown_element", refusal) if refusal else None


def _relax(
    entry: StructureEntry,
    calculator: BaseCalculator,
    settings: RelaxSettings,
    key: str,
    trajectory: Path,
) -> tuple[RelaxationRecord, Atoms]:
    assert entry.atoms is not None
    start = entry.atoms.copy()
    try:
        result = relax_atoms(
            start,
            calculator,
            settings=settings,
            trajectory=trajectory,
            with_stress=True,
        )
    except OSError as error:
        if not is_full_disk(error):
            return _failed(entry, key, error), start
        raise DataError(
            f"cannot write '{trajectory}': {error.strerror}; make room and run the "
            "same command again"
        ) from error
    except Exception as error:  # one bad structure must not end a night's work
        return _failed(entry, key, error), start
    record = RelaxationRecord(
        key,
        entry.name,
        "",
        "converged" if result.converged else "not_converged",
        energy=result.energy,
        max_force=result.max_force,
        n_steps=result.n_steps,
        domain_distance=result.domain_distance,
        stalled_at=result.stalled_at,
    )
    return record, result.atoms


def _failed(entry: StructureEntry, key: str, error: Exception) -> RelaxationRecord:
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return RelaxationRecord(key, entry.name, "", "failed", error=text)


def write_results(
    relaxed: Sequence[Relaxed],
    folder: Path,
    *,
    model: ModelInfo,
    settings: RelaxSettings,
    **provenance: Any,
) -> dict[str, Any]:
    """Write results.csv, relaxed.extxyz and summary.json; return the summary.

    Raises:
        DataError: a file cannot be written.
    """
    rows = [_row(entry) for entry in relaxed]
    write_atomically(folder / "results.csv", csv_bytes(rows))
    _write_structures(relaxed, folder / "relaxed.extxyz")
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    summary = {
        "counts": counts,
        "structures": rows,
        "model": {"name": model.name, "sha256": model.sha256},
        "settings": settings.as_dict(),
        **provenance,
        "versions": package_versions(),
    }
    write_json(folder / "summary.json", summary)
    return summary


def _row(relaxed: Relaxed) -> dict[str, Any]:
    record, atoms = relaxed.record, relaxed.atoms
    row: dict[str, Any] = {
        "name": relaxed.name,
        "status": record.status,
        "formula": None,
        "energy_eV": record.energy,
        "max_force_eV_per_A": record.max_force,
        "max_stress_GPa": None,
        "volume_A3": None,
        "steps": record.n_steps,
        "domain_distance": record.domain_distance,
        "note": note_of_domain(record.domain_distance),
        "fire_from_step": record.stalled_at,
        "error": record.error,
    }
    if atoms is not None:
        row["formula"] = atoms.get_chemical_formula(mode="metal")
        if atoms.cell.rank == 3:
            row["volume_A3"] = float(atoms.get_volume())
        stress = atoms.calc.results.get("stress") if atoms.calc is not None else None
        if stress is not None:
            row["max_stress_GPa"] = float(np.abs(stress).max() / units.GPa)
    return row


def _write_structures(relaxed: Sequence[Relaxed], path: Path) -> None:
    frames = []
    for entry in relaxed:
        if entry.atoms is not None:
            frame = entry.atoms.copy()
            frame.calc = entry.atoms.calc
            frame.info = {"name": entry.name, "status": entry.record.status}
            frames.append(frame)
    with atomic_path(path) as temporary:
        ase.io.write(temporary, frames, format="extxyz")


def file_name_of(name: str) -> str:
    """Return a name as a file or folder may have it."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("_")[:60] or "structure"
