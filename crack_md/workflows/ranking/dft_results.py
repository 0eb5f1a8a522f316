"""Reads DFT results back from the folders that `dft_inputs` wrote.

A calculation counts when its atoms are those of the input, no force on a free atom
exceeds 0.05 eV/Å, and the adsorbate is still adsorbed where it began. What does not
count is named in one line each and left out.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from crack_md.errors import DataError
from crack_md.workflows.orr import gas_molecules
from crack_md.workflows.ranking.calibration import ReferenceValue, reference_value
from crack_md.workflows.ranking.dft_inputs import (
    MANIFEST,
    START,
    Calculation,
    read_manifest,
)
from crack_md.workflows.ranking.rescore import ADSORBATE_TAG
from crack_md.workflows.screening.reader import SavedScreening
from crack_md.workflows.surfaces.outcome import adsorbate_anomalies

log = logging.getLogger(__name__)
RESULT_FILES = {
    "vasprun.xml": "vasp-xml",
    "OUTCAR": "vasp-out",
    "espresso.pwo": "espresso-out",
    "relaxed.traj": "traj",
}
"""And their formats, in ASE's words; the first that is there is read."""
SETTLED_EV_PER_A = 0.05
MOVED_A = 0.7
"""Sideways: farther than that is another site, fcc to hcp is 1.6 Å on Pt(111)."""


class _UnusableError(Exception):
    """A calculation that does not count, and why."""


@dataclass(frozen=True, eq=False)
class _Finished:
    """The end of a DFT relaxation."""

    energy: float
    start: Atoms
    atoms: Atoms
    """In the cell, order and images of the start."""


def read_dft_values(
    folder: Path, screening: SavedScreening
) -> tuple[ReferenceValue, ...]:
    """Return adsorption energies against H2O and H2 from finished calculations.

    Raises:
        DataError: there is no finished one, or the folder is none of ours.
    """
    calculations = read_manifest(folder)
    if not calculations:
        raise DataError(
            f"'{folder}' holds no {MANIFEST}; expected a CSV file, or a folder that "
            "crack-md rank --write has made"
        )
    results = _Results(folder, calculations)
    adsorbed = [c for c in calculations.values() if c.role == "adsorbed"]
    values, waiting = [], 0
    for calculation in adsorbed:
        if not results.is_there(calculation):
            waiting += 1
            continue
        try:
            values.append(_value(calculation, results, screening))
        except (_UnusableError, ValueError) as error:
            log.warning("left out: %s: %s", calculation.folder, error)
    if not values:
        expected = " or ".join(RESULT_FILES)
        raise DataError(
            f"'{folder}': none of {len(adsorbed)} adsorbates has a usable result; "
            f"expected {expected} in its folder, that of the clean slab and gas/"
        )
    if waiting:
        log.warning("%d of %d adsorbates have no result yet", waiting, len(adsorbed))
    return tuple(values)


def _value(
    calculation: Calculation, results: "_Results", screening: SavedScreening
) -> ReferenceValue:
    """Return E(covered) − E(clean) − E(gas) as a reference value."""
    if calculation.adsorbate not in screening.adsorbates:
        raise _UnusableError(f"{calculation.adsorbate} was not screened")
    covered = results.finished(calculation)
    clean = results.of("clean", calculation.name)
    found = _changes(covered, clean)
    if found:
        raise _UnusableError(found)
    adsorbate = covered.start.symbols[covered.start.get_tags() == ADSORBATE_TAG]
    gases = gas_molecules(Counter(map(str, adsorbate)))
    energy = covered.energy - clean.energy
    energy -= sum(n * results.of("gas", gas).energy for gas, n in gases.items())
    row = {
        "slab": calculation.name,
        "site": calculation.site,
        "dE_eV": repr(energy),
    }
    return reference_value(row, "dE_eV", calculation.adsorbate, screening)


def _changes(covered: _Finished, clean: _Finished) -> str:
    """Return what became of the adsorbate; empty where it is still on its site."""
    anomalies = adsorbate_anomalies(
        covered.atoms, initial=covered.start, clean=clean.atoms
    )
    if anomalies:
        return ", ".join(anomalies)
    first = int(np.flatnonzero(covered.start.get_tags() == ADSORBATE_TAG)[0])
    step = covered.atoms.positions[first] - covered.start.positions[first]
    moved = float(np.linalg.norm(step[:2]))
    return f"moved {moved:.1f} Å sideways, to another site" if moved > MOVED_A else ""


@dataclass(frozen=True, eq=False)
class _Results:
    folder: Path
    calculations: dict[str, Calculation]

    def is_there(self, calculation: Calculation) -> bool:
        return any(self._files(calculation))

    def of(self, role: str, name: str) -> _Finished:
        """Return the end of the clean slab, or of the molecule, of that name."""
        for calculation in self.calculations.values():
            if (calculation.role, calculation.name) == (role, name):
                if not self.is_there(calculation):
                    raise _UnusableError(f"no result in {calculation.folder}")
                return self.finished(calculation)
        raise _UnusableError(f"{MANIFEST} names no calculation of {role} {name}")

    def finished(self, calculation: Calculation) -> _Finished:
        path, form = next(self._files(calculation))
        try:
            at = self.folder / calculation.folder / START
            start = ase.io.read(at, format="traj")
            assert isinstance(start, Atoms)
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise _UnusableError(f"cannot read '{at}': {reason}") from error
        try:
            end = ase.io.read(path, index=-1, format=form)
            assert isinstance(end, Atoms)
            energy = float(end.get_potential_energy())
            forces = end.get_forces(apply_constraint=False)
        except Exception as error:  # what half a file makes ASE raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise _UnusableError(f"cannot read '{path}': {reason}") from error
        if end.get_chemical_symbols() != start.get_chemical_symbols():
            raise _UnusableError(f"'{path}' has other atoms than the input")
        held = [index for each in start.constraints for index in each.get_indices()]
        free = np.setdiff1d(np.arange(len(start)), held)
        largest = float(np.linalg.norm(forces[free], axis=1).max(initial=0.0))
        if not largest <= SETTLED_EV_PER_A:
            raise _UnusableError(
                f"not relaxed: a force of {largest:.2f} eV/Å is left in '{path}'"
            )
        moved = start.copy()
        steps = find_mic(end.positions - start.positions, start.cell, pbc=True)[0]
        moved.set_constraint()
        moved.positions += steps
        return _Finished(energy, start, moved)

    def _files(self, calculation: Calculation) -> Iterator[tuple[Path, str]]:
        for name, form in RESULT_FILES.items():
            path = self.folder / calculation.folder / name
            if path.is_file():
                yield path, form
