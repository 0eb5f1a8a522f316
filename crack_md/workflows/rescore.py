"""The best slabs of a screening again, by a larger model.

Energies are those of the structures that the screening has relaxed, or, on request,
after relaxing on from there. Every result is appended to a file as soon as it is there,
so that a stopped run goes on.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import BaseCalculator

from crack_md.errors import DataError
from crack_md.workflows.relax import MAXSTEP_A, relax
from crack_md.workflows.results import ModelInfo
from crack_md.workflows.results_folder import Adsorbed, Candidate, Screening
from crack_md.workflows.structures import Structures

FILE_NAME = "rescored.jsonl"
BOX_A = 12.0
ADSORBATE_TAG = 2
"""OC20's tag of the atoms of an adsorbate."""
GASES = {
    "H": {"H2": 0.5},
    "O": {"H2O": 1.0, "H2": -1.0},
    "C": {"CO": 1.0, "H2O": -1.0, "H2": 1.0},
    "N": {"N2": 0.5},
}
"""The gas molecules that one atom is made of."""
Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Rescored:
    """What another model says of an adsorbate on one slab."""

    slab: str
    adsorbate: str
    site: str
    model: str
    sha256: str
    relaxed: bool
    screened_eV: float
    """ΔE of the screening."""
    dE_eV: float | None
    """ΔE by this model, against H2O and H2; None where there is none."""
    status: str
    """``single_point``, ``converged``, ``not_converged``, ``missing``, ``failed``."""
    moved_A: float | None = None
    """How far the adsorbate went from where the screening left it."""
    error: str = ""

    @property
    def counts(self) -> bool:
        """Return whether the energy may replace that of the screening."""
        return self.dE_eV is not None and self.status in ("converged", "single_point")


def rescore(
    screening: Screening,
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
        report: called with how many are done, how many there are, and the next slab.

    Raises:
        DataError: the folder cannot be written.
    """
    chosen = [
        (candidate, adsorbed)
        for candidate in screening.candidates[:top]
        for adsorbed in candidate.adsorbed
    ]
    stored = {_key(entry): entry for entry in read_rescored(screening.folder)}
    run = _Run(screening, Structures.of(screening), calculator, model, relaxes)
    results = []
    for done, (candidate, adsorbed) in enumerate(chosen):
        if report is not None:
            report(done, len(chosen), candidate.slab)
        blank = run.result(candidate, adsorbed, None, "failed")
        result = stored.get(_key(blank))
        if result is None or result.status in ("failed", "missing"):
            result = run.rescored(candidate, adsorbed)
            _append(screening.folder, result)
        results.append(result)
    if report is not None:
        report(len(chosen), len(chosen), "")
    return tuple(results)


def read_rescored(folder: Path) -> tuple[Rescored, ...]:
    """Return everything that other models have said of the slabs of a folder."""
    path = folder / FILE_NAME
    if not path.is_file():
        return ()
    return tuple(_lines(path.read_text(encoding="utf-8").splitlines()))


def _lines(lines: Iterable[str]) -> Iterator[Rescored]:
    for line in lines:
        try:
            yield Rescored(**json.loads(line))
        except (ValueError, TypeError):  # the last line of a run that was killed
            continue


def _append(folder: Path, result: Rescored) -> None:
    try:
        with (folder / FILE_NAME).open("a", encoding="utf-8") as file:
            # a newline first parts it from half a line of a killed run
            file.write("\n" + json.dumps(asdict(result), ensure_ascii=False) + "\n")
    except OSError as error:
        raise DataError(
            f"cannot write '{folder / FILE_NAME}': {error.strerror or error}"
        ) from error


def _key(result: Rescored) -> tuple[Any, ...]:
    what = result.slab, result.adsorbate, result.site, result.screened_eV
    return *what, result.sha256, result.relaxed


@dataclass
class _Run:
    screening: Screening
    structures: Structures
    calculator: BaseCalculator
    model: ModelInfo
    relaxes: bool
    gases: dict[str, float] | None = None

    def result(
        self,
        candidate: Candidate,
        adsorbed: Adsorbed,
        dE_eV: float | None,
        status: str,
        **more: Any,
    ) -> Rescored:
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

    def rescored(self, candidate: Candidate, adsorbed: Adsorbed) -> Rescored:
        total = self.model.energy_reference == "total"
        covered = self.structures.adsorbed(candidate, adsorbed)
        clean = self.structures.clean(candidate, adsorbed) if total else None
        if covered is None or (total and clean is None):
            text = "results.db does not hold it"
            return self.result(candidate, adsorbed, None, "missing", error=text)
        try:
            energy, final, good = self._evaluate(covered)
            if clean is not None:
                clean_energy, _, clean_good = self._evaluate(clean)
                guest = covered[covered.get_tags() == ADSORBATE_TAG]
                energy -= clean_energy + self._gas_energy(guest.symbols)
                good = good and clean_good
        except Exception as error:  # one bad structure must not end the others
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return self.result(candidate, adsorbed, None, "failed", error=text)
        status = "converged" if self.relaxes else "single_point"
        status = status if good else "not_converged"
        moved = _moved(covered, final)
        return self.result(candidate, adsorbed, energy, status, moved_A=moved)

    def _evaluate(self, atoms: Atoms) -> tuple[float, Atoms, bool]:
        """Return the energy in eV, its structure, and whether that is settled."""
        settings = self.screening.settings
        if not self.relaxes:
            still = atoms.copy()
            still.calc = self.calculator
            energy = float(still.get_potential_energy())
            return energy, still, bool(np.isfinite(energy))
        done = relax(
            atoms,
            self.calculator,
            fmax=float(settings.get("fmax_eV_per_A", 0.03)),
            steps=int(settings.get("steps", 300)),
            maxstep=float(settings.get("maxstep_A", MAXSTEP_A)),
        )
        return done.energy, done.atoms, done.converged

    def _gas_energy(self, guest: Sequence[str]) -> float:
        """Return what the adsorbate's atoms have as gas molecules."""
        if self.gases is None:
            self.gases = dict(self.model.gas_references)
            settings = self.screening.settings
            if settings.get("reference") == "OC20":  # the same for every model
                self.gases = dict(settings.get("gas_energies_eV", {}))
        total = 0.0
        for symbol in guest:
            if symbol not in GASES:
                raise DataError(f"no gas-phase reference for {symbol}")
            for gas, share in GASES[symbol].items():
                if gas not in self.gases:
                    self.gases[gas] = gas_energy(gas, self.calculator)
                total += share * self.gases[gas]
        return total


def gas_energy(name: str, calculator: BaseCalculator) -> float:
    """Return the energy in eV of a relaxed molecule in a periodic box."""
    gas: Atoms = molecule(name, cell=[BOX_A] * 3, pbc=True)
    gas.center()
    return relax(gas, calculator, fmax=0.005).energy


def _moved(before: Atoms, after: Atoms) -> float:
    """Return the largest displacement in Å of an atom of the adsorbate."""
    guest = before.get_tags() == ADSORBATE_TAG
    steps = after.positions[guest] - before.positions[guest]
    return float(np.linalg.norm(steps, axis=1).max(initial=0.0))
