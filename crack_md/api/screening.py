"""``screen``: rank surfaces for oxygen reduction, as ``crack-md screen`` does."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase.calculators.calculator import BaseCalculator

from crack_md.api.inputs import (
    Structures,
    as_entries,
    build_settings,
    describe_calculator,
    describe_input,
    domain_distance,
)
from crack_md.plots.orr import free_energy_png, volcano_png
from crack_md.plots.screening.report import write_report
from crack_md.progress import Report
from crack_md.structures import Frames, StructureEntry
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.notebook import TableResult, html_table
from crack_md.workflows.relax.store import open_store
from crack_md.workflows.screening.plan import ScreenSettings
from crack_md.workflows.screening.relaxations import Runner, batched_runner
from crack_md.workflows.screening.results import ScreenResult, SlabResult
from crack_md.workflows.screening.screen import screen_slabs
from crack_md.workflows.screening.tables import slab_rows, write_result, write_tables
from crack_md.workflows.surfaces.adsorbates import Adsorbate, parse_adsorbates
from crack_md.workflows.surfaces.cut import CutSettings, cut_entries
from crack_md.workflows.surfaces.outcome import DomainDistance

SHOWN_DIAGRAMS = 5
FIGURES = ("volcano.png", "free_energy.png")


@dataclass(frozen=True)
class Execution:
    """Where the relaxations of a screening are done and kept."""

    runner: Runner | None = None
    """None: in this process, ``batch`` at a time."""
    batch: int = 1
    """Relaxations at a time that share forward passes; 64 suit a GPU."""
    processors: Mapping[str, Any] = field(default_factory=dict)
    """What summary.json says about the runner."""
    distance: DomainDistance | None = None
    """How far a structure is from what the model knows; None asks the calculator."""
    database: str | None = None
    """Address of a PostgreSQL server instead of results.db."""


@dataclass(frozen=True, eq=False)
class ScreeningResults(TableResult):
    """Surfaces by falling limiting potential, and the folder that holds it all."""

    result: ScreenResult
    summary: Mapping[str, Any]
    """What summary.json holds."""
    folder: Path

    @property
    def ranking(self) -> list[dict[str, Any]]:
        """Return one record per slab, best first: what is not empty, rounded."""
        return list(self.summary["ranking"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of results.csv, best first, unrounded."""
        return slab_rows(self.result)

    @property
    def slabs(self) -> tuple[SlabResult, ...]:
        """Return everything that is known of every slab, sites included."""
        return self.result.slabs

    def plot_volcano(self, path: str | Path) -> Path:
        """Draw limiting potentials over ΔG(O*) into a PNG file; return its path."""
        write_result(Path(path), volcano_png(self.result))
        return Path(path)

    def plot_free_energy(
        self, path: str | Path, *, slabs: int = SHOWN_DIAGRAMS
    ) -> Path:
        """Draw the free-energy diagrams of the best slabs; return the PNG's path."""
        write_result(Path(path), free_energy_png(_diagrams(self.result, slabs)))
        return Path(path)

    def _repr_html_(self) -> str:
        """Return the ranking as a table for a notebook."""
        return html_table(self.ranking)


def screen(
    surfaces: Structures,
    calculator: BaseCalculator,
    *,
    adsorbates: str | Iterable[str | Adsorbate] = ("O",),
    out: str | Path = "screen-results",
    select: str | None = None,
    frames: Frames = "last",
    cut: CutSettings | None = None,
    model: ModelInfo | None = None,
    gas_energies: Mapping[str, float] | None = None,
    execution: Execution | None = None,
    report: Report | None = None,
    **options: Any,
) -> ScreeningResults:
    """Return surfaces ranked for oxygen reduction by their adsorption energies.

    Relaxes every slab, clean and with the adsorbates on each symmetry-distinct site,
    and writes results.csv, sites.csv, results.db, summary.json, figures and report.html
    into ``out``. A slab that cannot be screened becomes a row that says why.

    Args:
        surfaces: slabs (a file, a folder, `ase.Atoms` or several); bulks with ``cut``.
        calculator: any ASE calculator, such as `CrackCalculator`.
        adsorbates: O, OH, OOH, ``orr`` (O, OH, and OOH where the model's limits hold
            it), an element, or a molecule with the atom that binds (``CO:C``).
        out: folder for results; a stopped screening in it goes on.
        select: rows of an ASE database, such as ``metal=Pt``.
        frames: ``last`` takes the last frame of a trajectory, ``all`` each.
        cut: planes and sizes of slabs to cut from bulks.
        model: what the calculator is; asked of it where left out.
        gas_energies: eV per molecule, such as ``{"H2O": -12.81, "H2": -6.98}``, by the
            same calculator; those stored in a model where left out.
        execution: batches, workers, a database server.
        report: called with a `ProgressEvent` after every relaxation.
        options: fields of `ScreenSettings`: ``fmax`` (eV/Å), ``steps``, ``max_sites``,
            ``optimizer``, ``corrections``, ``scaling``, ``solvation``, ``stability``,
            ``coverages`` (monolayers), ``seed`` ...

    Raises:
        ConfigError: an option or adsorbate is unknown, or gas energies are missing.
        DataError: the surfaces cannot be read, or ``out`` cannot be written.
    """
    options["adsorbates"] = _parse(adsorbates)
    settings: ScreenSettings = build_settings(ScreenSettings, options, "screen")
    settings.check()
    entries = as_entries(surfaces, select, frames)
    entries = entries if cut is None else cut_entries(entries, cut)
    info = model or describe_calculator(calculator, gas_energies=gas_energies)
    settings.check_for(info)
    how, source = execution or Execution(), describe_input(surfaces, len(entries))
    return screen_entries(
        entries, calculator, info, settings, how, out, source=source, report=report
    )


def screen_entries(
    entries: Sequence[StructureEntry],
    calculator: BaseCalculator,
    model: ModelInfo,
    settings: ScreenSettings,
    execution: Execution,
    out: str | Path,
    *,
    source: Mapping[str, Any],
    report: Report | None = None,
) -> ScreeningResults:
    """Screen slabs that are read and settings that are checked; write all files.

    Args:
        entries: slabs, or why there are none.
        calculator: of the model.
        model: what it is.
        settings: checked for this model.
        execution: where relaxations are done and kept.
        out: folder for results.
        source: what summary.json says about the input.
        report: called after every relaxation.

    Raises:
        DataError: ``out`` cannot be written, is in use, or holds other results.
    """
    start, address = time.monotonic(), execution.database
    runner = execution.runner or batched_runner(calculator, width=execution.batch)
    with open_store(Path(out), settings.conditions(model), address=address) as store:
        result = screen_slabs(
            entries,
            calculator,
            model=model,
            store=store,
            settings=settings,
            report=report,
            runner=runner,
            distance=execution.distance or domain_distance(calculator),
        )
        _write_figures(result, store.folder)
        summary = write_tables(
            result,
            store.folder,
            input=dict(source),
            processors=dict(execution.processors),
            seconds=round(time.monotonic() - start, 1),
        )
        write_report(store.folder)
    return ScreeningResults(result, summary, Path(out))


def _parse(adsorbates: str | Iterable[str | Adsorbate]) -> tuple[Adsorbate, ...]:
    if isinstance(adsorbates, str):
        return parse_adsorbates(adsorbates)
    listed = list(adsorbates)
    ready = [each for each in listed if isinstance(each, Adsorbate)]
    named = [str(each) for each in listed if not isinstance(each, Adsorbate)]
    return (*(parse_adsorbates(",".join(named)) if named or not ready else ()), *ready)


def _write_figures(result: ScreenResult, folder: Path) -> None:
    """Draw the volcano and the diagrams of the best slabs; nothing without a result."""
    diagrams = _diagrams(result, SHOWN_DIAGRAMS)
    if not diagrams:  # of an earlier run, they would show other results
        for name in FIGURES:
            (folder / name).unlink(missing_ok=True)
        return
    volcano, free_energies = FIGURES
    write_result(folder / volcano, volcano_png(result))
    write_result(folder / free_energies, free_energy_png(diagrams))


def _diagrams(result: ScreenResult, count: int) -> dict[str, Any]:
    best = [slab for slab in result.slabs if slab.diagram is not None]
    return {slab.name: slab.diagram for slab in best[:count]}
