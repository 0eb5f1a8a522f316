"""``crack-md sample``: does a model sample like the frames it should reproduce?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

from crack_md.cli.common import Cell, Heading, build_table, explain_left_out, print_json
from crack_md.errors import ConfigError
from crack_md.progress import show_events

if TYPE_CHECKING:
    from crack_md.workflows.sampling.check import SamplingCheck
    from crack_md.workflows.sampling.reference import ReferenceFrames

COLORS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}
METRICS = {"wasserstein_1": "W₁", "jensen_shannon": "JS", "rmse_F": "RMSE F"}


def print_record(record: dict[str, Any], out: Path) -> None:
    """Print temperatures, energies, distances and the verdict with its reasons."""
    console = Console()
    for line in _doubts_about_reference(record):
        console.print(Text(line, style="dim"))
    _print_energies(console, record)
    if record["metrics"]:
        _print_metrics(console, record)
    chains = record["chains"]
    if chains is not None:
        spurious = _number(record["spurious"]["fraction"])
        console.print(
            Text(
                f"survival {chains['survival']:.2f}, {chains['n_blow_ups']} blow-ups; "
                f"{spurious} of the frames are spurious; "
                f"kinetic temperature {_temperature(chains, 'kinetic_temperature')}"
            )
        )
    verdict = record["verdict"]
    console.print(Text(verdict, style=f"bold {COLORS[verdict]}"))
    for kind, style in (("failures", "red"), ("doubts", "yellow")):
        for line in record[kind]:
            console.print(Text(f"  {line}", style=style))
    console.print(Text(f"written to {out}/: sampling.json, report.html ..."))


def _doubts_about_reference(record: dict[str, Any]) -> tuple[str, ...]:
    reference, model = record["reference"], record["model"]
    what = "its second half" if model is None else str(model["name"])
    return (
        f"{reference['n_frames']} frames of {reference['formula']}, {what} beside them",
        f"temperature {reference['temperature_K']:.1f} K "
        f"({reference['temperature_source'] or 'as given'}); the frames show "
        f"{_temperature(reference, 'virial_temperature')} (virial), "
        f"{_temperature(reference, 'bond_temperature')} (bonds)",
    )


def _print_energies(console: Console, record: dict[str, Any]) -> None:
    headings = [Heading("energy / eV", is_text=True)]
    headings += [Heading(title) for title in ("mean", "σ", "lowest", "highest")]
    rows = []
    for row in record["energies"]:
        values = (row.get(f"{name}_eV") for name in ("mean", "std", "min", "max"))
        rows.append([row["what"], *("" if v is None else f"{v:.3f}" for v in values)])
    console.print(build_table(headings, rows, width=console.width)[0])


def _print_metrics(console: Console, record: dict[str, Any]) -> None:
    headings = [Heading("distance", is_text=True)]
    headings += [Heading("metric"), Heading("value"), Heading("noise floor", drop=1)]
    headings += [Heading("ratio")]
    limit = record["limits"]["metric_over_noise_floor"]
    rows: list[list[Cell]] = []
    for row in record["metrics"]:
        ratio = row["ratio"]
        style = "" if ratio is not None and ratio <= limit else "yellow"
        rows.append(
            [
                row["observable"],
                METRICS[row["metric"]],
                f"{_number(row['value'])} {row['unit']}",
                _number(row["noise_floor"]),
                Text("-" if ratio is None else f"{ratio:.2f}", style=style),
            ]
        )
    table, left_out = build_table(headings, rows, width=console.width)
    console.print(table)
    if missing := explain_left_out(left_out, "sampling.json"):
        console.print(missing)


def _temperature(values: dict[str, Any], name: str) -> str:
    value, error = values[f"{name}_K"], values[f"{name}_error_K"]
    if value is None:
        return "unknown"
    return f"{value:.0f} K" if error is None else f"{value:.0f} ± {error:.0f} K"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


INTERRUPTED = 130
QUICK_STEPS = 2000


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("sample")(sample)


def sample(
    model: Annotated[
        str,
        typer.Argument(
            help="Model file, 'default' (the packaged student) or 'emt'. With --self: "
            "the reference, and nothing else."
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Argument(
            help="Frames of one molecule in the order of time: rMD17's npz or a folder "
            "of them, ASE database, extxyz, trajectory."
        ),
    ] = None,
    *,
    halves: Annotated[
        bool,
        typer.Option(
            "--self",
            help="Compare the second half of the reference with the first: what is "
            "good enough to decide about models passes.",
        ),
    ] = False,
    chains: Annotated[int, typer.Option(help="Half of them start elsewhere.")] = 16,
    steps: Annotated[
        int,
        typer.Option(
            help="Of every chain; the same command with more of them goes on."
        ),
    ] = 40_000,
    discard: Annotated[
        int | None,
        typer.Option(help="First steps that do not count. Default: a fifth."),
    ] = None,
    timestep: Annotated[float, typer.Option(help="fs.")] = 0.5,
    friction: Annotated[float, typer.Option(help="Of the heat bath, per ps.")] = 10.0,
    record_every: Annotated[int, typer.Option(help="Steps between frames.")] = 20,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="K, of the reference and of the chains. Default: what the reference "
            "says; for MD17 500 K · 3N/(3N−6), see docs/sampling.md."
        ),
    ] = None,
    labels: Annotated[
        Literal["old", "recomputed"],
        typer.Option(help="Of rMD17: 'old' are those its frames were sampled with."),
    ] = "old",
    molecule: Annotated[
        str | None, typer.Option(help="Which one, of a folder with several.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of starts and noise.")] = 0,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help=f"A first look: {QUICK_STEPS} steps, seldom enough to pass.",
        ),
    ] = False,
    device: Annotated[
        str, typer.Option(help="'cpu', 'cuda', or 'auto' for a GPU where there is one.")
    ] = "auto",
    out: Annotated[
        Path, typer.Option(help="Folder for results; stopped chains in it go on.")
    ] = Path("sampling-results"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the record as JSON and nothing else.")
    ] = False,
) -> None:
    """Compare Langevin chains of a model with frames sampled by DFT.

    Energies, distances and torsions of both, beside what the reference differs from
    itself. Writes sampling.json, report.html, figures and chains.npz. Exit code 0:
    PASS; 1: FAIL; 2: INCONCLUSIVE, or unusable input.
    """
    from crack_md.workflows.sampling.chains import SamplingSettings
    from crack_md.workflows.sampling.reference import read_reference

    path = _reference_path(model, reference, halves=halves)
    frames = read_reference(
        path, temperature_K=temperature, labels=labels, molecule=molecule
    )
    settings = SamplingSettings(
        temperature_K=frames.known_temperature,
        n_chains=chains,
        steps=QUICK_STEPS if quick else steps,
        timestep_fs=timestep,
        friction_per_ps=friction,
        seed=seed,
        record_every=record_every,
        discard=discard,
    )
    try:
        found, record = _check_into(
            out,
            frames,
            model=None if halves else model,
            settings=settings,
            device=device,
        )
    except KeyboardInterrupt:
        typer.echo(
            f"stopped; the chains are kept in '{out}': run the same command again to "
            "go on",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(record)
    else:
        print_record(record, out)
    if found.verdict.exit_code:
        raise typer.Exit(found.verdict.exit_code)


def _reference_path(model: str, reference: Path | None, *, halves: bool) -> Path:
    if halves and reference is None:
        return Path(model)
    if halves or reference is None:
        wanted = "--self REFERENCE" if halves else "MODEL REFERENCE"
        raise ConfigError(f"expected: crack-md sample {wanted}")
    return reference


def _check_into(
    out: Path,
    frames: "ReferenceFrames",
    *,
    model: str | None,
    settings: Any,
    device: str,
) -> tuple["SamplingCheck", dict[str, Any]]:
    """Run the check, write its files, and return it with its record."""
    from crack_md.api.runs import check_sampling
    from crack_md.files import read_json

    calculator, info = (None, None) if model is None else _load(model, device)
    with show_events() as report:
        found = check_sampling(
            frames, calculator, out=out, model=info, report=report, **vars(settings)
        )
    return found, read_json(out / "sampling.json")


def _load(model: str, device: str) -> tuple[Any, Any]:
    from crack_md.api.inputs import load_potential

    calculator, info = load_potential(model, device=device)
    if getattr(calculator, "forces_kind", "gradient") == "direct":
        typer.echo(
            "note: the forces of this model are direct, not the gradient of its "
            "energy: its chains are not samples of exp(−U/kT), and cannot pass",
            err=True,
        )
    return calculator, info
