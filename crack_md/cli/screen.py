"""The command about surfaces: ``crack-md screen``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from crack_md.cli import screen_options as option
from crack_md.cli.common import explain_interruption
from crack_md.cli.screen_scale import Scale, open_runner
from crack_md.errors import ConfigError
from crack_md.progress import show_events

if TYPE_CHECKING:
    from crack_md.api.screening import ScreeningResults
    from crack_md.structures import Entry
    from crack_md.workflows.screening.settings import ScreenSettings

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
    scaling: option.Scaling = "man-2011",
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
    from crack_md.cli.screen_output import print_ranking
    from crack_md.workflows.relax.store import check_address
    from crack_md.workflows.screening.settings import ScreenSettings
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
    )
    settings.check()
    gases = _gas_energies(gas_reference)
    scale = Scale(workers, batch, ray, gpus_per_worker)
    if terminations and miller is None:
        raise ConfigError("--terminations needs --miller: it is about cutting bulks")
    sizes = {"thickness_A": thickness_A, "vacuum_A": vacuum_A, "width_A": width_A}
    entries = _read(surfaces, select, miller, all_terminations=terminations, **sizes)
    if database is not None:
        check_address(database)
    potential = _PotentialOptions(model, device, dtype, gases)
    with explain_interruption(out):
        results = _run(surfaces, entries, settings, potential, scale, out, database)
    if as_json:
        typer.echo(json.dumps(results.summary, indent=2, ensure_ascii=False))
    else:
        print_ranking(results.summary, out)
    if not results.summary["counts"]["slabs"].get("ok"):
        raise typer.Exit(ALL_FAILED)


def _read(surfaces: Path, select: str | None, miller: str | None, **sizes: Any) -> Any:
    """Return the slabs of the input, cut from bulks where planes are given."""
    from crack_md.structures import read_entries
    from crack_md.workflows.surfaces.cut import CutSettings, cut_entries, parse_planes

    planes = parse_planes(miller) if miller is not None else ()
    entries = read_entries(surfaces, select=select)
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
    entries: "tuple[Entry, ...]",
    settings: "ScreenSettings",
    potential: _PotentialOptions,
    scale: Scale,
    out: Path,
    address: str | None,
) -> "ScreeningResults":
    """Run the screening on as many processors as the options say."""
    from crack_md.api.models import (
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
