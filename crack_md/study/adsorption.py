"""Errors of a student's relaxed adsorption energies against a finished screening."""

from pathlib import Path
from statistics import fmean
from typing import Any

from crack_md.calculators import CrackCalculator
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.ranking.rescore import Rescoring
from crack_md.workflows.screening.reader import Structures, read_screening


def adsorption_errors(student: Path, folder: Path) -> dict[str, Any]:
    """Return the error of adsorption energies in eV, and how many there are.

    Every slab counts with its best site. The student relaxes clean and covered slab on
    from where the source of its labels has them at rest. Where one does not settle, or
    the adsorbate leaves, there is no energy.

    Args:
        student: A checkpoint.
        folder: Results of ``crack-md screen`` by the source of the labels.

    Raises:
        DataError: The folder holds no finished screening.
    """
    screening = read_screening(folder)
    calculator = CrackCalculator(student)
    model = ModelInfo(
        name=student.name,
        sha256=calculator.model_sha256,
        energy_reference=calculator.metadata.energy_reference,
        # those of the labels, whose zero of energy students learn: they drop out
        gas_references=screening.settings.get("gas_energies_eV") or {},
        forces=calculator.forces_kind,
    )
    rescoring = Rescoring(
        screening, Structures.of(screening), calculator, model, relaxes=True
    )
    found = [
        rescoring.rescore_one(candidate, adsorbed)
        for candidate in screening.candidates
        for adsorbed in candidate.adsorbed
    ]
    errors = [
        one.dE_eV - one.screened_eV
        for one in found
        if one.is_usable and one.dE_eV is not None
    ]
    numbers: dict[str, Any] = {
        "n_slabs": len(errors),
        "n_without_energy": len(found) - len(errors),
    }
    if errors:
        numbers |= {"mae_eV": fmean(map(abs, errors)), "mean_error_eV": fmean(errors)}
    return numbers
