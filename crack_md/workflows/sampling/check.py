"""The sampling check: chains of a model, or half of a reference, against it; verdict.

PASS takes every metric at most twice its noise floor, survival of 0.99, at most one
spurious frame in a thousand, R-hat below 1.05, and a reference that can decide. What
speaks against the model is a failure only where both reference and sample are long
enough to be sure; elsewhere it is a doubt, and so is everything that limits the check
itself. One failure makes FAIL, otherwise one doubt INCONCLUSIVE.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from ase.calculators.calculator import BaseCalculator
from jaxtyping import Float

from crack_md.errors import ConfigError, DataError
from crack_md.progress import ProgressEvent, Report
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.notebook import html_facts
from crack_md.workflows.sampling.analysis import (
    ENERGY,
    Analysis,
    Convergence,
    GeometryLimits,
    SampleFrames,
    analyse,
)
from crack_md.workflows.sampling.chains import SampledChains, SamplingSettings
from crack_md.workflows.sampling.metrics import Metric
from crack_md.workflows.sampling.molecule import MoleculeTopology, find_molecule
from crack_md.workflows.sampling.reference import (
    MIN_FRAMES,
    MoleculePotential,
    OnReference,
    ReferenceFrames,
    evaluate_reference,
)
from crack_md.workflows.sampling.run_chains import run_chains, starting_positions
from crack_md.workflows.sampling.temperature import (
    Temperature,
    Thermometers,
    measure_thermometers,
)

Status = Literal["PASS", "FAIL", "INCONCLUSIVE"]
EXIT_CODES: dict[Status, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2}

MAX_RATIO = 2.0
GROSS_RATIO = 5.0
"""Times the floor at which energies are wrong even beside a short reference: what its
torsions have not shown cannot move the mean energy that far."""
MIN_SURVIVAL = 0.99
MAX_SPURIOUS = 1e-3
GROSS_SPURIOUS = 10.0
"""Times the limit at which spurious frames need no error bar: a chain may be stuck."""
MAX_R_HAT = 1.05
MIN_EFFECTIVE_SIZE = 50.0
VIRIAL_TOLERANCE = 0.3
BOND_TOLERANCE = 0.1
KINETIC_TOLERANCE = 0.02


@dataclass(frozen=True)
class ChainSummary:
    """How the chains fared; None in `judge` for frames that are no chains."""

    survival: float
    kinetic: Temperature
    forces_kind: Literal["gradient", "direct"]


@dataclass(frozen=True)
class Verdict:
    """What came out, in a word and in lines of reasons."""

    status: Status
    failures: tuple[str, ...]
    """What shows that the model does not sample like the reference."""
    doubts: tuple[str, ...]
    """Why this check cannot say more."""

    @property
    def exit_code(self) -> int:
        """Return 0 for PASS, 1 for FAIL, 2 for INCONCLUSIVE."""
        return EXIT_CODES[self.status]


def judge(
    analysis: Analysis,
    *,
    thermometers: Thermometers,
    temperature_K: float,
    dynamics: ChainSummary | None = None,
) -> Verdict:
    """Return the verdict on a sample.

    Args:
        analysis: what was measured.
        thermometers: of the reference.
        temperature_K: that reference and chains should have.
        dynamics: of the chains; None where another trajectory is compared.
    """
    failures: list[str] = []
    is_off = list(_doubts_about_temperature(thermometers, temperature_K))
    doubts = [
        *is_off,
        *_doubts_about_reference(analysis.reference_convergence),
        *_doubts_about_sample(analysis.sample_convergence),
    ]
    for metric in (m for c in analysis.comparisons for m in c.metrics):
        if not metric.ratio <= MAX_RATIO:
            excuse = _excuse(metric, analysis, is_off=bool(is_off))
            (doubts if excuse else failures).append(_describe(metric) + excuse)
    if analysis.n_frames == 0:
        doubts.append("no frame counts: no chain outlived the steps to discard")
    elif not analysis.spurious_fraction <= MAX_SPURIOUS:
        is_sure = not is_off and _has_spurious_states(analysis)
        reason = (
            f"{analysis.n_spurious['any']} of {analysis.n_frames} frames are spurious: "
            f"{analysis.spurious_fraction:.2g}, not at most {MAX_SPURIOUS:g}"
        )
        (failures if is_sure else doubts).append(reason)
    if dynamics is not None:
        if not dynamics.survival >= MIN_SURVIVAL:
            failures.append(
                f"{dynamics.survival:.2f} of the chains lived to the end, not "
                f"{MIN_SURVIVAL}"
            )
        doubts += _doubts_about_chains(dynamics, temperature_K)
    status: Status = "FAIL" if failures else "INCONCLUSIVE" if doubts else "PASS"
    return Verdict(status, tuple(failures), tuple(doubts))


def _excuse(metric: Metric, analysis: Analysis, *, is_off: bool) -> str:
    """Return what else than the model a distance may come from; empty if nothing."""
    if is_off:
        return ", but the reference is in doubt"
    if any(_is_short(one) for one in analysis.reference_convergence):
        is_gross = metric.kind == "energy" and metric.ratio > GROSS_RATIO
        return "" if is_gross else ", but the reference is short"
    monitored = _monitors(metric, analysis.sample_convergence)
    if not all(one.r_hat < MAX_R_HAT and not _is_short(one) for one in monitored):
        return ", but the sample has not converged"
    is_noise = not metric.value > MAX_RATIO * metric.sample_floor
    return ", but the sample is as far from itself" if is_noise else ""


def _has_spurious_states(analysis: Analysis) -> bool:
    """Return whether spurious frames are neither chance nor missed by the reference.

    What N frames do not show may yet have a probability of 3/N (at 95 %).
    """
    limit = max(MAX_SPURIOUS, 3.0 / analysis.n_reference)
    surely = analysis.spurious_fraction - 2.0 * analysis.spurious_error
    return surely > limit or analysis.spurious_fraction > GROSS_SPURIOUS * limit


def _monitors(
    metric: Metric, convergence: tuple[Convergence, ...]
) -> list[Convergence]:
    """Return what has to converge for a metric to mean something."""
    if metric.kind == "energy":
        return [one for one in convergence if one.name == ENERGY]
    if metric.kind == "torsion":
        return [one for one in convergence if one.name.startswith(metric.observable)]
    return [one for one in convergence if one.name != ENERGY]


def _describe(metric: Metric) -> str:
    what = {"W1": "Wasserstein distance", "JS": "Jensen–Shannon", "F": "RMSE of F"}
    return (
        f"{metric.observable}: {what[metric.quantity]} {metric.value:.3g} "
        f"{metric.unit}, {metric.ratio:.1f} times the noise floor"
    )


def _doubts_about_temperature(
    thermometers: Thermometers, temperature_K: float
) -> Iterator[str]:
    virial, bonds = thermometers.virial, thermometers.bonds
    if virial is None or bonds is None:
        yield (
            "the reference has no forces: whether they belong to its frames cannot be "
            "told"
        )
        return
    if virial.is_off(
        temperature_K, tolerance=VIRIAL_TOLERANCE, spread=thermometers.turning
    ):
        yield (
            f"the virial temperature of the reference is {virial}, more than "
            f"{VIRIAL_TOLERANCE:.0%} off {temperature_K:.0f} K: it was not sampled "
            "with the potential that labels it"
        )
    if bonds.is_off(temperature_K, tolerance=BOND_TOLERANCE):
        yield (
            f"the bonds of the reference show {bonds}, more than {BOND_TOLERANCE:.0%} "
            f"off {temperature_K:.0f} K: give its --temperature"
        )


def _doubts_about_reference(convergence: tuple[Convergence, ...]) -> Iterator[str]:
    for one in convergence:
        if _is_short(one):
            yield (
                f"{one.name}: the {one.n_values} frames of the reference are worth "
                f"{one.effective_size:.0f} independent ones, fewer than "
                f"{MIN_EFFECTIVE_SIZE:.0f}"
            )


def _doubts_about_sample(convergence: tuple[Convergence, ...]) -> Iterator[str]:
    for one in convergence:
        if not one.r_hat < MAX_R_HAT:
            yield (
                f"{one.name}: R-hat of the sample is {one.r_hat:.2f}, not below "
                f"{MAX_R_HAT}: sample longer"
            )
        elif _is_short(one):
            yield (
                f"{one.name}: the sample is worth {one.effective_size:.0f} independent "
                f"frames, fewer than {MIN_EFFECTIVE_SIZE:.0f}: sample longer"
            )


def _doubts_about_chains(dynamics: ChainSummary, temperature_K: float) -> Iterator[str]:
    if dynamics.forces_kind == "direct":
        yield (
            "forces are direct, not the gradient of the energy: the chains are not "
            "samples of exp(−U/kT), whatever their distribution is"
        )
    kinetic, margin = dynamics.kinetic, 2.0 * dynamics.kinetic.error
    if abs(kinetic.value - temperature_K) > KINETIC_TOLERANCE * temperature_K + margin:
        yield (
            f"the chains move at {kinetic}, more than {KINETIC_TOLERANCE:.0%} off "
            f"{temperature_K:.0f} K: take a smaller --timestep or more --friction"
        )


def _is_short(convergence: Convergence) -> bool:
    return not convergence.effective_size >= MIN_EFFECTIVE_SIZE


CHAINS_FILE = "chains.npz"
N_RESTART_FRAMES = 100


@dataclass(frozen=True)
class SamplingCheck:
    """Everything that a check found out."""

    reference: ReferenceFrames
    molecule: MoleculeTopology
    thermometers: Thermometers
    analysis: Analysis
    verdict: Verdict
    sample_energies: Float[np.ndarray, " frame"] | None
    """eV, of the frames that count, on the scale of the reference."""
    on_reference: OnReference | None = None
    """None where one half of the reference was compared with the other."""
    chains: SampledChains | None = None
    dynamics: ChainSummary | None = None
    model: ModelInfo | None = None

    def _repr_html_(self) -> str:
        """Return the verdict with its reasons, as a table for a notebook."""
        reasons = {
            "failures": "; ".join(self.verdict.failures),
            "doubts": "; ".join(self.verdict.doubts),
        }
        return html_facts({"verdict": self.verdict.status, **reasons})


def compare_chains(
    reference: ReferenceFrames,
    calculator: BaseCalculator,
    *,
    model: ModelInfo,
    settings: SamplingSettings,
    folder: Path,
    max_reference_frames: int = 2000,
    report: Report | None = None,
) -> SamplingCheck:
    """Return whether chains of a model are distributed like the reference.

    Args:
        reference: frames to reproduce; its temperature is known.
        calculator: of the model.
        model: what it is, for records and for going on with stopped chains.
        settings: of the chains, at the temperature of the reference.
        folder: for the chains.
        max_reference_frames: on how many frames the model is evaluated.
        report: progress.

    Raises:
        ConfigError: the model or the temperature cannot be compared.
        DataError: the folder holds other chains, or cannot be written.
        StructureError: the model cannot be applied to the molecule.
    """
    _require_comparable(reference, model, settings)
    folder.mkdir(parents=True, exist_ok=True)
    molecule = find_molecule(reference.numbers, reference.positions)
    potential = MoleculePotential(reference.numbers, calculator)
    thin = reference.thin(max_reference_frames)
    on_reference = evaluate_reference(
        thin, potential, report=_count_report(report, "model on reference", len(thin))
    )
    starts = starting_positions(
        reference, molecule, n_chains=settings.n_chains, seed=settings.seed
    )
    chains = run_chains(
        reference.numbers,
        starts,
        calculator,
        settings=settings,
        limits=GeometryLimits.of(molecule.graph, reference.positions),
        restart_frames=reference.thin(N_RESTART_FRAMES).positions,
        path=folder / CHAINS_FILE,
        provenance={"model": model.sha256, "reference": reference.sha256},
        report=_count_report(report, "steps of the chains", settings.steps),
    )
    return _judge_sample(
        reference,
        SampleFrames.of_chains(chains, offset=on_reference.offset),
        molecule=molecule,
        on_reference=on_reference,
        chains=chains,
        dynamics=ChainSummary(
            chains.survival, chains.kinetic_temperature, potential.forces_kind
        ),
        model=model,
        report=report,
    )


def check_halves(
    reference: ReferenceFrames, *, report: Report | None = None
) -> SamplingCheck:
    """Return whether the second half of a reference is distributed like the first.

    The check must pass on a reference that is good enough to decide about models.

    Raises:
        DataError: there are too few frames for that.
    """
    half = len(reference) // 2
    if half < MIN_FRAMES:
        raise DataError(
            f"{reference.where} has {len(reference)} frames; half of them are too few "
            "to be compared"
        )
    molecule = find_molecule(reference.numbers, reference.positions)
    second = reference.select(slice(half, None))
    return _judge_sample(
        reference.select(slice(half)),
        SampleFrames.of_reference(second),
        molecule=molecule,
        thermometers=measure_thermometers(
            reference.positions, reference.forces, molecule.graph
        ),
        report=report,
    )


def _judge_sample(
    reference: ReferenceFrames,
    sample: SampleFrames,
    *,
    molecule: MoleculeTopology,
    on_reference: OnReference | None = None,
    chains: SampledChains | None = None,
    dynamics: ChainSummary | None = None,
    model: ModelInfo | None = None,
    thermometers: Thermometers | None = None,
    report: Report | None = None,
) -> SamplingCheck:
    thermometers = thermometers or measure_thermometers(
        reference.positions, reference.forces, molecule.graph
    )
    analysis = analyse(
        reference,
        sample,
        molecule=molecule,
        model_on_reference=None if on_reference is None else on_reference.energies,
        report=report,
    )
    verdict = judge(
        analysis,
        thermometers=thermometers,
        temperature_K=reference.known_temperature,
        dynamics=dynamics,
    )
    energies = None if sample.energies is None else sample.energies[sample.counts]
    return SamplingCheck(
        reference,
        molecule,
        thermometers,
        analysis,
        verdict,
        energies,
        on_reference,
        chains,
        dynamics,
        model,
    )


def _require_comparable(
    reference: ReferenceFrames, model: ModelInfo, settings: SamplingSettings
) -> None:
    temperature_K = reference.known_temperature
    if settings.temperature_K != temperature_K:
        raise ConfigError(
            f"the reference was sampled at {temperature_K:g} K and the chains would be "
            f"at {settings.temperature_K:g} K; they can only be compared at one "
            "temperature"
        )
    if model.energy_reference != "total":
        raise ConfigError(
            f"{model.name} predicts adsorption energies, which no molecule alone has; "
            "the sampling check needs a model of total energies"
        )


def _count_report(
    report: Report | None, what: str, total: int
) -> Callable[[int], None] | None:
    if report is None:
        return None
    return lambda done: report(ProgressEvent(done, total, what))
