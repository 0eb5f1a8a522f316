"""``crack-md screen``: options into objects, and on how many processors it works."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from crack_md.cli import screen_options as option
from crack_md.cli.common import explain_interruption, print_json
from crack_md.errors import ConfigError
from crack_md.progress import show_events

if TYPE_CHECKING:
    from crack_md.api.inputs import PotentialLoader
    from crack_md.api.screening import ScreeningResults
    from crack_md.structures import StructureEntry
    from crack_md.workflows.screening.plan import ScreenSettings
    from crack_md.workflows.screening.relaxations import Runner
    from crack_md.workflows.screening.workers.driver import Driver

BATCH_ON_GPU = 64


@dataclass(frozen=True)
class Processors:
    """What the options say about workers.

    Raises:
        ConfigError: options that have no meaning together.
    """

    workers: int | None = None
    batch: int | None = None
    ray: str | None = None
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares of GPUs without a cluster that has them."""
        if self.gpus_per_worker and self.ray is None:
            raise ConfigError("--gpus-per-worker needs --ray: it is about its workers")

    def width(self, calculator: Any) -> int:
        """Return how many relaxations every process does at a time."""
        if self.batch is not None:
            return self.batch
        device = str(getattr(calculator, "device", "cpu"))
        here = self.ray is None and device.startswith("cuda")
        return BATCH_ON_GPU if here or self.gpus_per_worker else 1

    @property
    def is_here(self) -> bool:
        """Return whether this process does the relaxations itself."""
        return self.ray is None and (self.workers or 1) == 1

    def threads(self) -> int:
        """Return how many threads of PyTorch every worker has."""
        if self.ray is not None:
            return 1
        import torch

        return max(1, torch.get_num_threads() // (self.workers or 1))


@contextmanager
def open_runner(
    scale: Processors, calculator: Any, loader: "PotentialLoader", expected: str
) -> Iterator[tuple["Runner", Mapping[str, Any]]]:
    """Give what does the relaxations, and what the summary says about it.

    Args:
        scale: what the options say.
        calculator: of this process.
        loader: makes those of workers.
        expected: the fingerprint that theirs must have.

    Raises:
        WorkerError: there is no such cluster, or no room on it.
        MissingDependencyError: Ray is not installed.
    """
    from crack_md.workflows.screening.relaxations import batched_runner

    width = scale.width(calculator)
    facts = {"workers": scale.workers or 1, "batch": width, "ray": scale.ray}
    if scale.is_here:
        yield batched_runner(calculator, width=width), facts
        return
    # of a lost worker Ray tells on stdout, which is for results
    with (
        redirect_stdout(sys.stderr),
        _open_driver(scale, loader, width, expected) as driver,
    ):
        facts["workers"] = driver.backend.n_workers
        yield driver, facts
    if driver.n_lost:
        typer.echo(
            f"note: {driver.n_lost} workers were lost; what they had was done again",
            err=True,
        )


@contextmanager
def _open_driver(
    scale: Processors, loader: "PotentialLoader", width: int, expected: str
) -> Iterator["Driver"]:
    from crack_md.workflows.screening.workers.driver import Driver
    from crack_md.workflows.screening.workers.processes import Processes
    from crack_md.workflows.screening.workers.ray_cluster import RayActors, connect

    if scale.ray is None:
        backend = Processes(loader, workers=scale.workers or 1, width=width)
        with Driver(backend, fingerprint=expected) as driver:
            yield driver
        return
    ray = connect(scale.ray)
    try:
        actors = RayActors(
            ray,
            loader,
            workers=scale.workers,
            width=width,
            gpus_per_worker=scale.gpus_per_worker,
        )
        with Driver(actors, fingerprint=expected) as driver:
            yield driver
    finally:
        ray.shutdown()


ALL_FAILED = 1


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("screen")(screen)


def screen(
    surfaces: option.Surfaces,
    *,
    model: option.Model = "default",
    out: option.Out = Path("screen-results"),
    adsorbate: option.Adsorbates = "O",
    select: option.Select = None,
    frames: option.Frames = "last",
    miller: option.MillerIndices = None,
    terminations: option.Terminations = False,
    thickness_A: option.Thickness = 6.0,
    vacuum_A: option.Vacuum = 15.0,
    width_A: option.Width = 4.9,
    random_placements: option.RandomPlacements = 0,
    seed: option.Seed = 0,
    orientations: option.Orientations = 2,
    max_sites: option.MaxSites = None,
    optimizer: option.Optimizer = "LBFGS",
    fmax: option.Fmax = 0.03,
    steps: option.Steps = 300,
    reference: option.Reference = "H2O-H2",
    corrections: option.Corrections = "norskov-2004",
    scaling: option.Scaling = None,
    solvation: option.Solvation = "calle-vallejo-2015",
    stability: option.Stability = False,
    coverage: option.Coverages = None,
    gas_reference: option.GasReference = None,
    device: option.Device = "auto",
    dtype: option.Precision = "float32",
    workers: option.Workers = None,
    batch: option.Batch = None,
    ray: option.Ray = None,
    gpus_per_worker: option.GpusPerWorker = 0.0,
    database: option.DatabaseAddress = None,
    as_json: option.AsJson = False,
) -> None:
    """Rank surfaces for oxygen reduction by their O* adsorption energy.

    Relaxes every slab, clean and with the adsorbates on each symmetry-distinct site,
    and writes results.csv (one row per slab, best first), sites.csv, results.db
    (relaxed structures), summary.json, volcano.png, free_energy.png and report.html,
    which shows it all on one page. A slab that cannot be screened becomes a row that
    says why. Exit code 1: no slab has a result; 2: unusable input.
    """
    from crack_md.cli.rankings import print_screening
    from crack_md.structures import read_entries
    from crack_md.workflows.relax.store import check_address
    from crack_md.workflows.screening.coverage import parse_coverages
    from crack_md.workflows.screening.plan import ScreenSettings
    from crack_md.workflows.surfaces.adsorbates import parse_adsorbates

    # Everything that can be wrong with the input is found before a file is made.
    settings = ScreenSettings(
        adsorbates=parse_adsorbates(adsorbate),
        fmax=fmax,
        steps=steps,
        optimizer=optimizer,
        orientations=orientations,
        random_placements=random_placements,
        seed=seed,
        max_sites=max_sites,
        reference=reference,
        corrections=corrections,
        scaling=scaling,
        solvation=solvation,
        stability=stability,
        coverages=parse_coverages(coverage),
    )
    settings.check()
    gases = _gas_energies(gas_reference)
    scale = Processors(workers, batch, ray, gpus_per_worker)
    if terminations and miller is None:
        raise ConfigError("--terminations needs --miller: it is about cutting bulks")
    sizes = {"thickness_A": thickness_A, "vacuum_A": vacuum_A, "width_A": width_A}
    read = read_entries(surfaces, select=select, frames=frames)
    entries = _cut(read, miller, all_terminations=terminations, **sizes)
    if database is not None:
        check_address(database)
    potential = _PotentialOptions(model, device, dtype, gases)
    with explain_interruption(out):
        results = _run(surfaces, entries, settings, potential, scale, out, database)
    if as_json:
        print_json(results.summary)
    else:
        print_screening(results.summary, out)
    if not results.summary["counts"]["slabs"].get("ok"):
        raise typer.Exit(ALL_FAILED)


def _cut(
    entries: "tuple[StructureEntry, ...]", miller: str | None, **sizes: Any
) -> "tuple[StructureEntry, ...]":
    """Return the slabs of the input, cut from bulks where planes are given."""
    from crack_md.workflows.surfaces.cut import CutSettings, cut_entries, parse_planes

    planes = parse_planes(miller) if miller is not None else ()
    return cut_entries(entries, CutSettings(planes, **sizes)) if planes else entries


@dataclass(frozen=True)
class _PotentialOptions:
    """Which model, where, and against which gas molecules."""

    model: str
    device: str
    dtype: Any
    gases: dict[str, float] | None


def _run(
    surfaces: Path,
    entries: "tuple[StructureEntry, ...]",
    settings: "ScreenSettings",
    potential: _PotentialOptions,
    scale: Processors,
    out: Path,
    address: str | None,
) -> "ScreeningResults":
    """Run the screening on as many processors as the options say."""
    from crack_md.api.inputs import (
        PotentialLoader,
        domain_distance,
        fingerprint,
        load_potential,
    )
    from crack_md.api.screening import Execution, screen_entries
    from crack_md.structures import input_sha256
    from crack_md.workflows.surfaces.outcome import neighbor_distance

    model, device, dtype = potential.model, potential.device, potential.dtype
    # the workers of a cluster may have a device that this machine has not
    here = device if scale.ray is None else "auto"
    calculator, info = load_potential(
        model, device=here, dtype=dtype, gas_energies=potential.gases
    )
    settings.check_for(info)
    threads = 1 if model == "emt" else scale.threads()
    loader = PotentialLoader(model, device, dtype, threads)
    with (
        open_runner(scale, calculator, loader, fingerprint(info)) as opened,
        show_events() as report,
    ):
        runner, processors = opened
        # workers measure with their own models
        distance = domain_distance(calculator) if scale.is_here else neighbor_distance
        return screen_entries(
            entries,
            calculator,
            info,
            settings,
            Execution(
                runner,
                processors=processors,
                distance=distance,
                database=address,
            ),
            out,
            source={
                "path": str(surfaces),
                "sha256": input_sha256(surfaces),
                "structures": len(entries),
            },
            report=report,
        )


def _gas_energies(text: str | None) -> dict[str, float] | None:
    """Return {"H2O": ..., "H2": ...} from ``H2O=-12.81,H2=-6.98``."""
    if text is None:
        return None
    try:
        pairs = [part.split("=") for part in text.split(",") if part.strip()]
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError as error:
        raise ConfigError(
            f"cannot read --gas-reference '{text}'; expected energies in eV such as "
            "H2O=-12.81,H2=-6.98"
        ) from error
