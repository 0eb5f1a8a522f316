"""``crack-md md``: molecular dynamics, and whether a model conserves energy."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from crack_md.cli.common import (
    FAILED,
    AsJson,
    Device,
    Index,
    Model,
    Results,
    load_for,
    number,
    print_facts,
    print_json,
    show_run,
)

DIRECT_FORCES = (
    "they do not conserve energy, and what they sample is not the ensemble of any "
    "temperature"
)


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("md")(md)


def md(
    structure: Annotated[
        Path,
        typer.Argument(help="Where to start: extxyz, traj, cif, POSCAR, ASE db ..."),
    ],
    *,
    model: Model = "default",
    ensemble: Annotated[
        Literal["nve", "langevin", "bussi", "npt"],
        typer.Option(
            help="nve: velocity Verlet. langevin: BAOAB. bussi: stochastic velocity "
            "rescaling. npt: Langevin with a cell of fluctuating volume; needs stress."
        ),
    ] = "langevin",
    temperature: Annotated[float, typer.Option(help="K.")] = 300.0,
    timestep: Annotated[
        float, typer.Option(help="fs; 0.5 with hydrogen, 1 to 2 without.")
    ] = 1.0,
    steps: Annotated[
        int,
        typer.Option(
            min=1,
            help="Steps of the whole run; the same command with more of them goes on.",
        ),
    ] = 1000,
    friction: Annotated[
        float,
        typer.Option(
            help="Rate of the heat bath per ps: Langevin's friction, 1/τ of others."
        ),
    ] = 1.0,
    pressure: Annotated[float, typer.Option(help="GPa, for npt.")] = 0.0,
    pressure_time: Annotated[
        float, typer.Option(help="fs in which npt answers to pressure.")
    ] = 1000.0,
    seed: Annotated[int, typer.Option(min=0, help="Of velocities and noise.")] = 0,
    initial_temperature: Annotated[
        float | None,
        typer.Option(
            help="K of the first velocities, where the structure has none. Default: "
            "--temperature; in nve a relaxed structure ends near half of it."
        ),
    ] = None,
    log_every: Annotated[int, typer.Option(help="Steps per row of thermo.csv.")] = 10,
    frames_every: Annotated[
        int, typer.Option(help="Steps per frame of the trajectory.")
    ] = 100,
    restart_every: Annotated[
        int, typer.Option(help="Steps per restart file; a kill loses at most these.")
    ] = 100,
    format: Annotated[
        Literal["extxyz", "traj"], typer.Option(help="Of the trajectory.")
    ] = "extxyz",
    let_bonds_break: Annotated[
        bool,
        typer.Option(
            "--let-bonds-break",
            help="Go on when a bond of nonmetals breaks or an atom leaves.",
        ),
    ] = False,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Measure energy conservation instead: --steps of nve after some of "
            "langevin, the same at half the step, and the asymmetry of the force "
            "Jacobian. Writes audit.json and audit.txt.",
        ),
    ] = False,
    index: Index = -1,
    out: Results = Path("md-results"),
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Run molecular dynamics with restarts that are exact to the last bit.

    Writes thermo.csv, trajectory.extxyz, final.extxyz, restart.npz and summary.json.
    Notes say whether the run equilibrated, whether the cell is tiny, and whether atoms
    came nearer than the model knows. Velocities of the structure are kept.
    Exit code 1: the run ended early (not finite, too hot, broken bonds, calculator
    failed), or an audit was not passed; 2: unusable input.
    """
    from crack_md.api.inputs import as_atoms
    from crack_md.workflows.md.settings import MDSettings

    settings = MDSettings(
        ensemble=ensemble,
        temperature_K=temperature,
        timestep_fs=timestep,
        steps=steps,
        friction_per_ps=friction,
        pressure_GPa=pressure,
        pressure_time_fs=pressure_time,
        seed=seed,
        initial_temperature_K=initial_temperature,
        log_every=log_every,
        frames_every=frames_every,
        restart_every=restart_every,
        format=format,
        stop_at_broken_bonds=not let_bonds_break,
    )
    atoms = as_atoms(structure, index)
    if audit:
        _audit(atoms, settings, model=model, device=device, out=out, as_json=as_json)
    else:
        _run(atoms, settings, model=model, device=device, out=out, as_json=as_json)


def _run(
    atoms: Any, settings: Any, *, model: str, device: str, out: Path, as_json: bool
) -> None:
    from crack_md.api.runs import run_md
    from crack_md.workflows.md.summary import FINISHED

    calculator, info = load_for(
        atoms, model, device=device, direct_forces=DIRECT_FORCES
    )
    with show_run(out) as report:
        result = run_md(
            atoms, calculator, out=out, model=info, report=report, **vars(settings)
        )
    if as_json:
        print_json(result.summary)
    else:
        print_facts(_facts(result.summary), f"written to {out}/: thermo.csv ...")
        if result.status == FINISHED:
            for note in result.summary["notes"]:
                typer.echo(f"note: {note}", err=True)
    if result.status != FINISHED:
        typer.echo(
            f"{result.status} at step {result.step}: {result.reason}; the last good "
            f"structure, of step {result.summary['last_good_step']}, is "
            f"'{out / 'final.extxyz'}'",
            err=True,
        )
        raise typer.Exit(FAILED)


def _facts(summary: dict[str, Any]) -> dict[str, str]:
    means, settings = summary["second_half"], summary["settings"]
    slope = number(summary["conserved_energy_drift_meV_per_atom_ps"], "+.3g")
    error = number(summary["conserved_energy_drift_error_meV_per_atom_ps"], ".2g")
    facts = {
        "status": summary["status"],
        "time": f"{summary['time_fs'] / 1000:g} ps, {summary['step']} steps of "
        f"{settings['timestep_fs']:g} fs, {settings['ensemble']}",
        "temperature": _temperature(summary),
        "drift": f"{slope} ± {error} meV/atom/ps of the conserved energy",
    }
    if "pressure_GPa" in means:
        facts["pressure"] = f"{means['pressure_GPa']:.3g} GPa"
        facts["volume"] = f"{means['volume_A3']:.1f} Å³"
        del facts["drift"]
    return facts


def _temperature(summary: dict[str, Any]) -> str:
    mean = summary["second_half"]["temperature_K"]
    error = number(summary["second_half_error"]["temperature_K"], ".1f")
    settings = summary["settings"]
    target = (
        ""
        if settings["ensemble"] == "nve"
        else (f"; the target is {settings['temperature_K']:g} K")
    )
    return f"{mean:.1f} ± {error} K (mean of the second half{target})"


def _audit(
    atoms: Any, settings: Any, *, model: str, device: str, out: Path, as_json: bool
) -> None:
    from crack_md.api.inputs import identity, load_potential
    from crack_md.workflows.md.audit import AuditSettings, run_audit

    chosen = AuditSettings(
        temperature_K=settings.temperature_K,
        timestep_fs=settings.timestep_fs,
        steps=settings.steps,
        log_every=settings.log_every,
        seed=settings.seed,
    )
    calculator, info = load_for(
        atoms, model, device=device, direct_forces=DIRECT_FORCES
    )
    precise, _ = load_potential(model, device=device, dtype="float64")
    with show_run(out) as show:
        found = run_audit(
            atoms,
            calculator,
            settings=chosen,
            folder=out,
            precise=precise,
            provenance={**identity(info), "jacobian_precision": "float64"},
            report=show,
        )
    if as_json:
        print_json(found)
    else:
        typer.echo((out / "audit.txt").read_text(encoding="utf-8"), nl=False)
        typer.echo(f"written to {out}/: audit.txt, audit.json")
    if not found["passes"]:
        raise typer.Exit(FAILED)
