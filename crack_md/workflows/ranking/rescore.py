"""Adsorption energies of the best slabs of a screening by a larger model.

Energies are those of the structures that the screening has relaxed, or, on request,
after relaxing on from there as the screening relaxes: the same optimizer and limits.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import BaseCalculator

from crack_md.progress import ProgressEvent, Report
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.orr import gas_molecules
from crack_md.workflows.ranking.results import Rescored, append_rescored, read_rescored
from crack_md.workflows.relax.relax import (
    DEFAULT_OPTIMIZER,
    MAXSTEP_A,
    PLATEAU_STEPS,
    RelaxResult,
    RelaxSettings,
    is_settled,
    relax_atoms,
)
from crack_md.workflows.screening.reader import (
    Adsorbed,
    Candidate,
    SavedScreening,
    Structures,
)
from crack_md.workflows.surfaces.outcome import adsorbate_anomalies

BOX_A = 12.0
ADSORBATE_TAG = 2
"""OC20's tag of the atoms of an adsorbate."""


def rescore(
    screening: SavedScreening,
    calculator: BaseCalculator,
    *,
    model: ModelInfo,
    top: int,
    relaxes: bool = False,
    report: Report | None = None,
) -> tuple[Rescored, ...]:
    """Return the adsorption energies of the best ``top`` slabs by another model.

    What an earlier run of the same model has stored is not computed again. A structure
    that fails becomes a result with a status.

    Args:
        screening: the folder to read from; results are appended to a file in it.
        calculator: the other model.
        model: what is known of it. Where gas energies are missing they are computed.
        top: how many slabs, best first.
        relaxes: relax clean and covered slabs on, with the settings of the screening.
        report: called before every slab and at the end.

    Raises:
        DataError: the folder cannot be written.
    """
    chosen = [
        (candidate, adsorbed)
        for candidate in screening.candidates[:top]
        for adsorbed in candidate.adsorbed
    ]
    stored = {_key(entry): entry for entry in read_rescored(screening.folder)}
    run = Rescoring(screening, Structures.of(screening), calculator, model, relaxes)
    results = []
    for done, (candidate, adsorbed) in enumerate(chosen):
        if report is not None:
            report(ProgressEvent(done, len(chosen), candidate.slab))
        blank = run.result(candidate, adsorbed, None, "failed")
        result = stored.get(_key(blank))
        if result is None or result.status in ("failed", "missing"):
            result = run.rescore_one(candidate, adsorbed)
            append_rescored(screening.folder, result)
        results.append(result)
    if report is not None:
        report(ProgressEvent(len(chosen), len(chosen)))
    return tuple(results)


def _key(result: Rescored) -> tuple[Any, ...]:
    what = result.slab, result.adsorbate, result.site, result.screened_eV
    return *what, result.sha256, result.relaxed


class _Endpoint(NamedTuple):
    """Where a structure ended; energy in eV."""

    energy: float
    atoms: Atoms
    status: str


@dataclass
class Rescoring:
    """Adsorption energies of structures of a screening by another model."""

    screening: SavedScreening
    structures: Structures
    calculator: BaseCalculator
    model: ModelInfo
    relaxes: bool
    gases: dict[str, float] | None = None
    clean_slabs: dict[tuple[bytes, bytes], _Endpoint] = field(default_factory=dict)
    """By elements and positions: one slab may carry several adsorbates."""

    def result(
        self,
        candidate: Candidate,
        adsorbed: Adsorbed,
        dE_eV: float | None,
        status: str,
        **more: Any,
    ) -> Rescored:
        """Return a result of this model under what identifies it."""
        return Rescored(
            slab=candidate.slab,
            adsorbate=adsorbed.adsorbate,
            site=adsorbed.site,
            model=self.model.name,
            sha256=self.model.sha256,
            relaxed=self.relaxes,
            screened_eV=adsorbed.dE_eV,
            dE_eV=dE_eV,
            status=status,
            **more,
        )

    def rescore_one(self, candidate: Candidate, adsorbed: Adsorbed) -> Rescored:
        """Return an adsorbate on its best site; a failure is a result with a status."""
        try:
            covered = self.structures.adsorbed(candidate, adsorbed)
            clean = self.structures.clean(candidate, adsorbed)
            total = self.model.energy_reference == "total"
            if covered is None or (total and clean is None):
                text = "results.db does not hold it"
                return self.result(candidate, adsorbed, None, "missing", error=text)
            return self._score(candidate, adsorbed, covered, clean)
        except Exception as error:  # one bad structure must not end the others
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return self.result(candidate, adsorbed, None, "failed", error=text)

    def _score(
        self,
        candidate: Candidate,
        adsorbed: Adsorbed,
        covered: Atoms,
        clean: Atoms | None,
    ) -> Rescored:
        """Return the adsorption energy of a structure, and whether it is one."""
        final = self._settle(covered)
        energy, status = final.energy, final.status
        if clean is not None and self.model.energy_reference == "total":
            slab = self._clean_slab(clean)
            adsorbate = covered[covered.get_tags() == ADSORBATE_TAG]
            energy -= slab.energy + self._gas_energy(adsorbate.symbols)
            clean, status = slab.atoms, max(status, slab.status, key=_badness)
        if clean is not None and self.relaxes:
            found = adsorbate_anomalies(final.atoms, initial=covered, clean=clean)
            status = found[0] if found else status
        moved = _displacement(covered, final.atoms)
        return self.result(candidate, adsorbed, energy, status, moved_A=moved)

    def _clean_slab(self, clean: Atoms) -> _Endpoint:
        key = clean.numbers.tobytes(), clean.positions.tobytes()
        if key not in self.clean_slabs:
            self.clean_slabs[key] = self._settle(clean)
        return self.clean_slabs[key]

    def _settle(self, atoms: Atoms) -> _Endpoint:
        """Return the structure as it is, or relaxed as the screening relaxes."""
        if not self.relaxes:
            still = atoms.copy()
            still.calc = self.calculator
            energy = float(still.get_potential_energy())
            good = np.isfinite(energy)
            return _Endpoint(energy, still, "single_point" if good else "not_converged")
        settings = self.screening.settings
        done = relax_atoms(
            atoms,
            self.calculator,
            settings=RelaxSettings(
                fmax=float(settings.get("fmax_eV_per_A", 0.03)),
                steps=int(settings.get("steps", 300)),
                maxstep=float(settings.get("maxstep_A", MAXSTEP_A)),
                optimizer=str(settings.get("optimizer", DEFAULT_OPTIMIZER)),
                plateau_steps=PLATEAU_STEPS if self.model.forces == "direct" else None,
            ),
        )
        return _Endpoint(done.energy, done.atoms, _status(done))

    def _gas_energy(self, adsorbate: Sequence[str]) -> float:
        """Return what the adsorbate's atoms have as gas molecules."""
        if self.gases is None:
            self.gases = dict(self.model.gas_references)
            settings = self.screening.settings
            if settings.get("reference") == "OC20":  # the same for every model
                self.gases = dict(settings.get("gas_energies_eV", {}))
        needed = gas_molecules(Counter(str(symbol) for symbol in adsorbate))
        for gas in needed:
            if gas not in self.gases:
                self.gases[gas] = molecule_energy(gas, self.calculator)
        return sum(count * self.gases[gas] for gas, count in needed.items())


def molecule_energy(name: str, calculator: BaseCalculator) -> float:
    """Return the energy in eV of a relaxed molecule in a periodic box."""
    gas: Atoms = molecule(name, cell=[BOX_A] * 3, pbc=True)
    gas.center()
    return relax_atoms(gas, calculator, settings=RelaxSettings(fmax=0.005)).energy


def _displacement(before: Atoms, after: Atoms) -> float:
    """Return the largest displacement in Å of an atom of the adsorbate."""
    adsorbate = before.get_tags() == ADSORBATE_TAG
    steps = after.positions[adsorbate] - before.positions[adsorbate]
    return float(np.linalg.norm(steps, axis=1).max(initial=0.0))


def _status(done: RelaxResult) -> str:
    """Return what a relaxation counts as; a plateau only where forces are small."""
    settled = is_settled(done.status, done.max_force)
    return done.status if settled else "not_converged"


def _badness(status: str) -> int:
    return ("single_point", "converged", "plateau", "not_converged").index(status)
