"""Relaxes reactions and scores their energies by CatBench's definitions.

LBFGS to 0.05 eV/Å in at most 999 steps, three times each; the energy of a reaction is
the median. It belongs to the first of these that is true:

    reproduction_failure   runs differ by more than 0.2 eV in ΔE or in a slab's energy
    unphysical_relaxation  a slab has not come to rest, or an atom of it has moved by
                           more than 0.5 Å, clean or under the adsorbate
    adsorbate_migration    a distance from an atom of the adsorbate to another atom, of
                           at most 6 Å before or after, has changed by more than 20 %
    energy_anomaly         ΔE is more than 2 eV off
    normal                 none of them

The total MAE is over all reactions that have an energy, the normal MAE over the normal
ones, the normal rate their part of the former. Beside them the same after a shift per
adsorbate: the median error over normal reactions and energy anomalies, where there are
five or more, which is what another gas reference does (doi:10.1016/j.xcrp.2025.102968;
CatBench 1.1.6).

Outcomes are kept as they come, a line each, and tables are written at the end.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.geometry import find_mic

from crack_md.errors import DataError, StructureError
from crack_md.files import (
    claim_folder,
    csv_bytes,
    keep_conditions,
    package_versions,
    write_atomically,
    write_json,
)
from crack_md.structures import structure_sha256
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.relax.relax import RelaxResult, RelaxSettings, relax_atoms
from crack_md.workflows.scoring.reactions import Reaction

CATEGORIES = (
    "normal",
    "adsorbate_migration",
    "energy_anomaly",
    "unphysical_relaxation",
    "reproduction_failure",
)
REPEATS = 3
RELAXATION = RelaxSettings(fmax=0.05, steps=999, maxstep=0.2, stall_steps=None)
"""CatBench takes LBFGS as ASE has it."""
DIFFER_EV, MOVED_A, OFF_EV = 0.2, 0.5, 2.0
BOND_A, BOND_CHANGE = 6.0, 0.2
LEAST_TO_SHIFT = 5


@dataclass(frozen=True)
class Run:
    """One pass over a reaction; energies in eV."""

    dE_eV: float
    clean_eV: float | None
    """None for adsorption-energy models, which are asked about covered slabs alone."""
    covered_eV: float
    at_rest: bool
    moved_A: float
    """Farthest that an atom of a slab went."""
    bond_change: float
    """Largest relative change of a distance to an atom of the adsorbate."""


@dataclass(frozen=True)
class ReactionOutcome:
    """A reaction by the model."""

    name: str
    adsorbate: str
    dft_eV: float
    dE_eV: float | None
    """The median of the runs; None where there is none."""
    category: str
    """One of `CATEGORIES`, ``unknown_element`` or ``failed``."""
    moved_A: float | None = None
    bond_change: float | None = None
    spread_eV: float | None = None
    error: str = ""

    @property
    def is_valid(self) -> bool:
        """Return whether the reaction has an energy."""
        return self.dE_eV is not None

    @property
    def deviation(self) -> float:
        """Return model − DFT in eV; not a number where there is no energy."""
        return float("nan") if self.dE_eV is None else self.dE_eV - self.dft_eV


@dataclass(frozen=True)
class Score:
    """How a model does on a set."""

    n_valid: int
    n_total: int
    mae_total_eV: float | None
    mae_normal_eV: float | None
    normal_rate: float | None
    counts: Mapping[str, int]
    shifts_eV: Mapping[str, float]
    """By adsorbate, of those with enough reactions."""
    mae_total_shifted_eV: float | None
    mae_normal_shifted_eV: float | None
    normal_rate_shifted: float | None

    @property
    def line(self) -> str:
        """Return the score in one line."""
        rate = "-" if self.normal_rate is None else f"{100 * self.normal_rate:.1f} %"
        return (
            f"{self.n_valid}/{self.n_total} valid, total MAE "
            f"{_shown(self.mae_total_eV)}, normal MAE {_shown(self.mae_normal_eV)}, "
            f"normal rate {rate}"
        )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} eV"


class Scorer:
    """Relaxes reactions with one model; equal slabs and molecules once.

    Args:
        calculator: of the model.
        model: what is known of it. Gas molecules whose energies it brings are not
            computed; an adsorption-energy model gives ΔE of the covered slab as it is.
        repeats: passes over each reaction.
    """

    def __init__(
        self, calculator: BaseCalculator, model: ModelInfo, *, repeats: int = REPEATS
    ) -> None:
        self.calculator, self.model, self.repeats = calculator, model, repeats
        self._relaxed: dict[tuple[str, int], RelaxResult] = {}

    def outcome(self, reaction: Reaction) -> ReactionOutcome:
        """Return what became of a reaction; an error is an outcome too."""
        blank = reaction.name, reaction.adsorbate, reaction.dft_eV, None
        if refusal := self.model.refusal(set(reaction.covered.symbols)):
            return ReactionOutcome(*blank, "unknown_element", error=refusal)
        try:
            runs = [self._run(reaction, number) for number in range(self.repeats)]
        except Exception as error:  # one odd reaction must not end the others
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return ReactionOutcome(*blank, "failed", error=text)
        chosen = median_run(runs)
        return ReactionOutcome(
            *blank[:3],
            chosen.dE_eV,
            classify(runs, reaction.dft_eV),
            moved_A=chosen.moved_A,
            bond_change=chosen.bond_change,
            spread_eV=float(np.ptp([run.dE_eV for run in runs])),
        )

    def _run(self, reaction: Reaction, number: int) -> Run:
        covered = self._relax(reaction.covered, number)
        own = list(reaction.adsorbed)
        slab = np.setdiff1d(np.arange(len(reaction.covered)), own)
        moved = farthest(reaction.covered[slab], covered.atoms[slab])
        change = largest_bond_change(reaction.covered, covered.atoms, own)
        if self.model.energy_reference != "total":
            energy = covered.energy
            return Run(energy, None, energy, covered.converged, moved, change)
        clean = self._relax(reaction.clean, number)
        energies = {
            "clean": clean.energy,
            "covered": covered.energy,
            **{gas: self._gas(gas, a, number) for gas, a in reaction.gases.items()},
        }
        return Run(
            sum(n * energies[part] for part, n in reaction.stoichiometry.items()),
            clean.energy,
            covered.energy,
            clean.converged and covered.converged,
            max(moved, farthest(reaction.clean, clean.atoms)),
            change,
        )

    def _gas(self, name: str, atoms: Atoms, number: int) -> float:
        known = self.model.gas_references
        return known[name] if name in known else self._relax(atoms, number).energy

    def _relax(self, atoms: Atoms, number: int) -> RelaxResult:
        key = structure_sha256(atoms), number
        if key not in self._relaxed:
            done = relax_atoms(atoms, self.calculator, settings=RELAXATION)
            if not np.isfinite(done.energy):
                raise StructureError("the model returned an energy that is not finite")
            self._relaxed[key] = done
        return self._relaxed[key]


def farthest(before: Atoms, after: Atoms) -> float:
    """Return in Å how far the atom went that went farthest, over the nearest image."""
    steps = find_mic(after.positions - before.positions, before.cell, before.pbc)[1]
    return float(np.max(steps, initial=0.0))


def largest_bond_change(before: Atoms, after: Atoms, adsorbed: Sequence[int]) -> float:
    """Return the largest relative change of a distance from the adsorbate to an atom.

    Of distances that are 6 Å at most before or after, over the nearest images.
    """
    largest = 0.0
    for index in adsorbed:
        others = [i for i in range(len(before)) if i != index]
        if not others:
            continue
        old = before.get_distances(index, others, mic=True)
        new = after.get_distances(index, others, mic=True)
        near = (np.minimum(old, new) <= BOND_A) & (old > 0)
        change = np.abs(new[near] - old[near]) / old[near]
        largest = max(largest, float(change.max(initial=0.0)))
    return largest


def median_run(runs: Sequence[Run]) -> Run:
    """Return the run with the median energy, the lower one of an even number."""
    by_energy = sorted(runs, key=lambda run: run.dE_eV)
    return by_energy[(len(runs) - 1) // 2]


def classify(runs: Sequence[Run], dft_eV: float) -> str:
    """Return which of the five categories a reaction belongs to."""
    chosen = median_run(runs)
    kinds = [[run.dE_eV for run in runs], [run.covered_eV for run in runs]]
    kinds.append([run.clean_eV for run in runs if run.clean_eV is not None])
    if any(np.ptp(values) > DIFFER_EV for values in kinds if values):
        return "reproduction_failure"
    if not all(run.at_rest for run in runs) or chosen.moved_A > MOVED_A:
        return "unphysical_relaxation"
    if chosen.bond_change > BOND_CHANGE:
        return "adsorbate_migration"
    return "energy_anomaly" if abs(chosen.dE_eV - dft_eV) > OFF_EV else "normal"


def score_outcomes(outcomes: Sequence[ReactionOutcome]) -> Score:
    """Return the score of a set; None stands for a mean over nothing."""
    valid = [outcome for outcome in outcomes if outcome.is_valid]
    sound = ("normal", "energy_anomaly")
    by_adsorbate: dict[str, list[float]] = {}
    for outcome in valid:
        if outcome.category in sound:
            by_adsorbate.setdefault(outcome.adsorbate, []).append(outcome.deviation)
    shifts = {
        name: float(np.median(errors))
        for name, errors in by_adsorbate.items()
        if len(errors) >= LEAST_TO_SHIFT
    }
    shifted = [o.deviation - shifts.get(o.adsorbate, 0.0) for o in valid]
    still_normal = [
        error
        for outcome, error in zip(valid, shifted, strict=True)
        if outcome.category in sound and abs(error) <= OFF_EV
    ]
    normal = [o.deviation for o in valid if o.category == "normal"]
    return Score(
        n_valid=len(valid),
        n_total=len(outcomes),
        mae_total_eV=_mae([outcome.deviation for outcome in valid]),
        mae_normal_eV=_mae(normal),
        normal_rate=len(normal) / len(valid) if valid else None,
        counts=dict(Counter(outcome.category for outcome in outcomes)),
        shifts_eV=shifts,
        mae_total_shifted_eV=_mae(shifted),
        mae_normal_shifted_eV=_mae(still_normal),
        normal_rate_shifted=len(still_normal) / len(valid) if valid else None,
    )


def _mae(errors: Sequence[float]) -> float | None:
    return float(np.mean(np.abs(errors))) if errors else None


KEPT = "scores.jsonl"


class OutcomeStore:
    """What a folder holds of one scoring.

    Args:
        folder: claimed by `open_outcomes`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / KEPT
        self.known = {each.name: each for each in _read(self.path)}

    def put(self, outcome: ReactionOutcome) -> None:
        """Keep an outcome for good.

        Raises:
            DataError: it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                # a newline first parts it from half a line of a killed run
                file.write("\n" + json.dumps(asdict(outcome)) + "\n")
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"cannot write '{self.path}': {reason}") from error
        self.known[outcome.name] = outcome


def _read(path: Path) -> Iterator[ReactionOutcome]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield ReactionOutcome(**json.loads(line))
        except (ValueError, TypeError):  # the last line of a run that was killed
            continue


@contextmanager
def open_outcomes(
    folder: Path, conditions: Mapping[str, Any]
) -> Iterator[OutcomeStore]:
    """Give what a folder holds to one run at a time.

    Args:
        folder: of results.
        conditions: what decides the outcomes, ready for JSON.

    Raises:
        DataError: the folder is in use, or holds outcomes of other conditions.
    """
    with claim_folder(folder):
        keep_conditions(folder, conditions, has_results=(folder / KEPT).exists())
        yield OutcomeStore(folder)


def write_scores(
    outcomes: Sequence[ReactionOutcome],
    score: Score,
    folder: Path,
    *,
    model: ModelInfo,
    **provenance: Any,
) -> dict[str, Any]:
    """Write scores.csv and summary.json; return the latter.

    Raises:
        DataError: a file cannot be written.
    """
    rows = [row_of(outcome) for outcome in outcomes]
    write_atomically(folder / "scores.csv", csv_bytes(rows, decimals=4))
    summary = {
        "line": score.line,
        **asdict(score),
        "model": {"name": model.name, "sha256": model.sha256},
        "gas_energies_eV": dict(model.gas_references),
        **provenance,
        "versions": package_versions(),
    }
    write_json(folder / "summary.json", summary)
    return summary


def row_of(outcome: ReactionOutcome) -> dict[str, Any]:
    """Return the outcome as a row of scores.csv."""
    return {
        "reaction": outcome.name,
        "adsorbate": outcome.adsorbate,
        "category": outcome.category,
        "dE_dft_eV": None if math.isnan(outcome.dft_eV) else outcome.dft_eV,
        "dE_eV": outcome.dE_eV,
        "error_eV": None if outcome.dE_eV is None else outcome.deviation,
        "moved_A": outcome.moved_A,
        "bond_change": outcome.bond_change,
        "spread_eV": outcome.spread_eV,
        "error": outcome.error,
    }
