"""``relax``, ``run_md``, ``compute_phonons``, ``check_sampling``, ``train``."""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from crack_md.api.inputs import (
    Structures,
    as_atoms,
    as_entries,
    build_settings,
    describe_calculator,
    describe_input,
    identity,
)
from crack_md.errors import StructureError
from crack_md.files import claim_folder, write_atomically, write_json
from crack_md.progress import Report
from crack_md.workflows.md.run import MDResult, run_dynamics
from crack_md.workflows.md.settings import MDSettings
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.notebook import TableResult
from crack_md.workflows.phonons.run import PhononResult, run_phonons
from crack_md.workflows.phonons.settings import PhononSettings
from crack_md.workflows.relax.batch import relax_all, write_results
from crack_md.workflows.relax.relax import RelaxSettings, require_stress
from crack_md.workflows.relax.store import open_store
from crack_md.workflows.sampling.chains import SamplingSettings
from crack_md.workflows.sampling.check import (
    SamplingCheck,
    check_halves,
    compare_chains,
)
from crack_md.workflows.sampling.record import summarize
from crack_md.workflows.sampling.reference import ReferenceFrames, read_reference

if TYPE_CHECKING:
    from crack_md.training.loop.trainer import TrainingSummary

PHONON_FMAX = 1e-4
"""eV/Å; forces that are left falsify curvatures."""


@dataclass(frozen=True, eq=False)
class RelaxationResults(TableResult):
    """Relaxed structures, what became of each, and the folder that holds them."""

    structures: tuple[Atoms | None, ...]
    """In the order given, with energy, forces and stress; None without a result."""
    summary: Mapping[str, Any]
    """What summary.json holds."""
    folder: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of results.csv."""
        return list(self.summary["structures"])


def relax(
    structures: Structures,
    calculator: BaseCalculator,
    *,
    out: str | Path = "relax-results",
    select: str | None = None,
    model: ModelInfo | None = None,
    report: Report | None = None,
    **options: Any,
) -> RelaxationResults:
    """Return structures at their nearest minimum.

    Writes results.csv, relaxed.extxyz, results.db, summary.json and trajectories/. A
    structure that cannot be relaxed becomes a row that says why.

    Args:
        structures: a file, a folder, `ase.Atoms` or several.
        calculator: any ASE calculator.
        out: folder for results; a stopped run in it goes on.
        select: rows of an ASE database.
        model: what the calculator is; asked of it where left out.
        report: called with a `ProgressEvent` after every structure.
        options: fields of `RelaxSettings`: ``fmax`` (eV/Å), ``steps``, ``optimizer``,
            ``maxstep`` (Å), ``cell``, ``pressure_GPa``, ``symmetry``.

    Raises:
        ConfigError: an option is unknown, or the cell should relax without stress.
        DataError: structures cannot be read, or ``out`` cannot be written.
    """
    start = time.monotonic()
    settings: RelaxSettings = build_settings(RelaxSettings, options, "relax")
    entries = as_entries(structures, select)
    info = model or describe_calculator(calculator)
    require_stress(calculator, settings.cell)
    folder = Path(out)
    conditions = {**settings.conditions(), "model_sha256": info.sha256}
    with open_store(folder, conditions) as store:
        relaxed = relax_all(
            entries,
            calculator,
            model=info,
            store=store,
            settings=settings,
            trajectories=folder / "trajectories",
            report=report,
        )
        summary = write_results(
            relaxed,
            folder,
            model=info,
            settings=settings,
            input=describe_input(structures, len(entries)),
            seconds=round(time.monotonic() - start, 1),
        )
    return RelaxationResults(tuple(one.atoms for one in relaxed), summary, folder)


def run_md(
    structure: str | Path | Atoms,
    calculator: BaseCalculator,
    *,
    out: str | Path = "md-results",
    index: int = -1,
    model: ModelInfo | None = None,
    report: Report | None = None,
    **options: Any,
) -> MDResult:
    """Return the end of a run of molecular dynamics that can be stopped and goes on.

    Writes thermo.csv, trajectory.extxyz, final.extxyz, restart.npz and summary.json.

    Args:
        structure: where to start; velocities it brings are kept, as momenta or as a
            column ``velocities`` in ASE's unit.
        calculator: any ASE calculator.
        out: folder for results; a stopped run in it goes on to the same bits.
        index: which structure of a file.
        model: what the calculator is; asked of it where left out.
        report: called with a `ProgressEvent` after every step.
        options: fields of `MDSettings`: ``ensemble``, ``temperature_K``,
            ``timestep_fs``, ``steps``, ``friction_per_ps``, ``seed`` ...

    Raises:
        ConfigError: an option is unknown or impossible for this structure or model.
        DataError: ``out`` cannot be written, is in use, or holds another run.
        StructureError: the structure is broken, or of elements the model does not know.
    """
    settings: MDSettings = build_settings(MDSettings, options, "run_md")
    atoms = as_atoms(structure, index)
    info = model or describe_calculator(calculator)
    require_known_elements(atoms, info)
    return run_dynamics(
        atoms,
        calculator,
        settings=settings,
        folder=Path(out),
        provenance=identity(info),
        report=report,
    )


def require_known_elements(atoms: Atoms, info: ModelInfo) -> None:
    """Refuse elements that the model was not trained on, before a file is made.

    Raises:
        StructureError: the structure has some.
    """
    if refusal := info.refusal(atoms.symbols):
        raise StructureError(refusal)


def compute_phonons(
    structure: str | Path | Atoms,
    calculator: BaseCalculator,
    *,
    out: str | Path = "phonon-results",
    relax: bool = True,
    fmax: float = PHONON_FMAX,
    index: int = -1,
    model: ModelInfo | None = None,
    report: Report | None = None,
    **options: Any,
) -> PhononResult:
    """Return the phonons of a crystal: bands, density of states, heat, instabilities.

    Writes phonons.json, bands.png, dos.csv, thermal.csv and phonopy_params.yaml.

    Args:
        structure: the crystal; any cell, the primitive one is found.
        calculator: any ASE calculator, in float64 where it can be.
        out: folder for results; forces that it holds are not computed again.
        relax: relax positions first, and the cell where there is stress, at their
            symmetry.
        fmax: eV/Å to relax to.
        index: which structure of a file.
        model: what the calculator is; asked of it where left out.
        report: called with a `ProgressEvent` after every displaced supercell.
        options: fields of `PhononSettings`: ``supercell``, ``min_length_A``,
            ``displacement_A`` ...

    Raises:
        ConfigError: an option is unknown.
        MissingDependencyError: phonopy is not installed.
        StructureError: not a crystal, or of elements the model does not know.
        DataError: ``out`` cannot be written, is in use, or holds another result.
    """
    from crack_md.plots.phonons import bands_png

    settings: PhononSettings = build_settings(PhononSettings, options, "phonons")
    atoms = as_atoms(structure, index)
    info = model or describe_calculator(calculator)
    require_known_elements(atoms, info)
    has_stress = "stress" in calculator.implemented_properties
    relaxation = RelaxSettings(
        fmax=fmax, steps=500, cell="full" if has_stress else "none", symmetry=True
    )
    result = run_phonons(
        atoms,
        calculator,
        settings=settings,
        folder=Path(out),
        relaxation=relaxation if relax else None,
        provenance=identity(info),
        notes=[note for note in [info.note_of_mirrors()] if note],
        report=report,
    )
    title = f"{result.summary['formula']}, {Path(info.name).name}"
    image = bands_png({title: result.phonons}, title=title)
    write_atomically(Path(out) / "bands.png", image)
    return result


def check_sampling(
    reference: str | Path | ReferenceFrames,
    calculator: BaseCalculator | None,
    *,
    out: str | Path = "sampling-results",
    temperature_K: float | None = None,
    model: ModelInfo | None = None,
    report: Report | None = None,
    **options: Any,
) -> SamplingCheck:
    """Return whether Langevin chains of a model are distributed like a reference.

    Writes sampling.json, report.html, figures and chains.npz.

    Args:
        reference: frames of one molecule in the order of time: rMD17's npz or a folder
            of them, ASE database, extxyz, trajectory, or `ReferenceFrames`.
        calculator: any ASE calculator; None compares the second half of the reference
            with the first.
        out: folder for results; stopped chains in it go on.
        temperature_K: of reference and chains; what the reference says where left out.
        model: what the calculator is; asked of it where left out.
        report: called with a `ProgressEvent` as the parts go on.
        options: fields of `SamplingSettings`: ``n_chains``, ``steps``, ``timestep_fs``,
            ``friction_per_ps``, ``seed`` ...

    Raises:
        ConfigError: an option is unknown, or the temperature is.
        DataError: the reference cannot be read, or ``out`` cannot be written.
    """
    from crack_md.plots.sampling_report import write_sampling_report

    start, folder = time.monotonic(), Path(out)
    frames = (
        reference
        if isinstance(reference, ReferenceFrames)
        else read_reference(Path(reference), temperature_K=temperature_K)
    )
    if temperature_K is not None:
        frames = replace(frames, temperature_K=temperature_K)
    options["temperature_K"] = frames.known_temperature
    settings = build_settings(SamplingSettings, options, "check_sampling")
    command = shlex.join(["crack-md", *sys.argv[1:]])
    with claim_folder(folder):
        if calculator is None:
            found = check_halves(frames, report=report)
        else:
            info = model or describe_calculator(calculator)
            found = compare_chains(
                frames,
                calculator,
                model=info,
                settings=settings,
                folder=folder,
                report=report,
            )
        seconds = round(time.monotonic() - start, 1)
        record = summarize(found, command=command, seconds=seconds)
        write_json(folder / "sampling.json", record)
        write_sampling_report(folder, found, record, command=command)
    return found


def train(
    config: str | Path, overrides: Sequence[str] = (), *, quiet: bool = False
) -> "TrainingSummary":
    """Distil a student as a recipe says; a stopped run goes on.

    Args:
        config: a YAML file such as configs/tiny.yaml.
        overrides: changed settings, such as ``["optimizer.lr=1e-4"]``.
        quiet: print nothing but errors.

    Raises:
        ConfigError: the recipe is wrong.
    """
    from crack_md.training.config import load_config
    from crack_md.training.loop.train import train as run

    return run(load_config(Path(config), list(overrides)), quiet=quiet)
