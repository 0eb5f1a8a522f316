"""The sampling check: chains of a model, or half of a reference, against it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.calculators.calculator import BaseCalculator
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.errors import ConfigError, DataError
from crack_md.progress import ProgressEvent, Report
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.notebook import html_facts
from crack_md.workflows.sampling.analysis import Analysis, SampleFrames, analyse
from crack_md.workflows.sampling.chains import SampledChains, SamplingSettings
from crack_md.workflows.sampling.limits import GeometryLimits
from crack_md.workflows.sampling.observables import MoleculeTopology, find_molecule
from crack_md.workflows.sampling.potential import (
    MoleculePotential,
    OnReference,
    evaluate_reference,
)
from crack_md.workflows.sampling.reference import MIN_FRAMES, ReferenceFrames
from crack_md.workflows.sampling.run_chains import run_chains
from crack_md.workflows.sampling.starts import starting_positions
from crack_md.workflows.sampling.temperature import (
    Thermometers,
    measure_thermometers,
)
from crack_md.workflows.sampling.verdict import (
    ChainSummary,
    Verdict,
    judge,
)

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
    sample_energies: Float[NDArray[np.float64], " frame"] | None
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
