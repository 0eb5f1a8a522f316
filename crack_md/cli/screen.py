"""The command about surfaces: ``crack-md screen``."""

import json
import time
from pathlib import Path
from typing import Any

import typer

from crack_md.cli import screen_options as option
from crack_md.errors import ConfigError

ALL_FAILED = 1
INTERRUPTED = 130
SHOWN_DIAGRAMS = 5


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
    as_json: option.AsJson = False,
) -> None:
    """Rank surfaces for oxygen reduction by their O* adsorption energy.

    Relaxes every slab, clean and with the adsorbates on each symmetry-distinct site,
    and writes results.csv (one row per slab, best first), sites.csv, results.db
    (relaxed structures), summary.json, volcano.png, free_energy.png and report.html,
    which shows it all on one page. A slab that cannot be screened becomes a row that
    says why. Exit code 1: no slab has a result; 2: unusable input.
    """
    from crack_md.cli.potentials import load_potential
    from crack_md.cli.screen_output import print_ranking
    from crack_md.workflows.adsorbates import parse_adsorbates
    from crack_md.workflows.results import ScreenSettings

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
    if terminations and miller is None:
        raise ConfigError("--terminations needs --miller: it is about cutting bulks")
    sizes = {"thickness_A": thickness_A, "vacuum_A": vacuum_A, "width_A": width_A}
    entries = _read(surfaces, select, miller, all_terminations=terminations, **sizes)
    calculator, info = load_potential(model, device=device, gas_energies=gases)
    settings.check_for(info)
    try:
        summary = _screen_into(out, surfaces, entries, calculator, info, settings)
    except KeyboardInterrupt:
        typer.echo(
            f"stopped; what is finished is kept in '{out}': run the same command "
            "again to go on",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        print_ranking(summary, out)
    if not summary["counts"]["slabs"].get("ok"):
        raise typer.Exit(ALL_FAILED)


def _read(surfaces: Path, select: str | None, miller: str | None, **sizes: Any) -> Any:
    """Return the slabs of the input, cut from bulks where planes are given."""
    from crack_md.workflows.cut import CutSettings, cut_entries, parse_planes
    from crack_md.workflows.inputs import read_entries

    planes = parse_planes(miller) if miller is not None else ()
    entries = read_entries(surfaces, select=select)
    return cut_entries(entries, CutSettings(planes, **sizes)) if planes else entries


def _screen_into(
    out: Path,
    surfaces: Path,
    entries: Any,
    calculator: Any,
    info: Any,
    settings: Any,
) -> dict[str, Any]:
    """Run the screening, write its files, and return the summary."""
    from crack_md.cli.potentials import domain_distance
    from crack_md.cli.screen_output import progress_bar
    from crack_md.plots.screening.report import write_report
    from crack_md.workflows.inputs import input_sha256
    from crack_md.workflows.screen import screen as run_screen
    from crack_md.workflows.store import open_store
    from crack_md.workflows.tables import write_tables

    start = time.monotonic()
    conditions = settings.conditions(info)
    with open_store(out, conditions) as store, progress_bar() as report:
        result = run_screen(
            entries,
            calculator,
            model=info,
            store=store,
            settings=settings,
            report=report,
            distance=domain_distance(calculator),
        )
        _write_figures(result, out)
        summary = write_tables(
            result,
            out,
            input={
                "path": str(surfaces),
                "sha256": input_sha256(surfaces),
                "structures": len(entries),
            },
            seconds=round(time.monotonic() - start, 1),
        )
        write_report(out)
        return summary


def _write_figures(result: Any, out: Path) -> None:
    """Draw the volcano, and the diagrams of the best slabs, where there are any."""
    from crack_md.plots.free_energy import free_energy_png
    from crack_md.plots.volcano import volcano_png
    from crack_md.workflows.orr import INTERMEDIATES
    from crack_md.workflows.tables import write_atomically

    if not {a.name for a in result.settings.adsorbates} & set(INTERMEDIATES):
        return
    write_atomically(out / "volcano.png", volcano_png(result))
    best = [slab for slab in result.slabs if slab.diagram is not None]
    diagrams = {slab.name: slab.diagram for slab in best[:SHOWN_DIAGRAMS]}
    if diagrams:
        write_atomically(out / "free_energy.png", free_energy_png(diagrams))


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
