"""About this machine and models: ``bench``, ``compile``, ``score``, ``doctor``."""

import dataclasses
import json
import platform
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from ase import Atoms
from ase.data import chemical_symbols
from rich.console import Console
from rich.text import Text

from crack_md.cli.common import (
    FAILED,
    AsJson,
    Device,
    Heading,
    build_table,
    explain_interruption,
    explain_left_out,
    print_facts,
)
from crack_md.cli.rank import MODEL_HELP, load_named
from crack_md.errors import (
    ConfigError,
    CrackError,
    StructureError,
    describe_unknown_elements,
)
from crack_md.progress import show_events, show_progress

if TYPE_CHECKING:
    from crack_md.bench.speed import Speed, SpeedTest
    from crack_md.models.force_field import ModelMetadata
    from crack_md.workflows.scoring.score import Score

Dtype = Literal["float32", "float64", "bfloat16", "tf32"]
DEFAULT_ATOMS = "46,81,1000"
COLUMNS = (
    Heading("structure", is_text=True),
    Heading("atoms", drop=1),
    Heading("first\ncall s", drop=3),
    Heading("ms"),
    Heading("quickest–\nslowest", drop=5),
    Heading("atoms·\nsteps/s"),
    Heading("ns/day\nat 1 fs", drop=2),
    Heading("peak\nMB", drop=4),
)


def bench(
    model: Annotated[
        str, typer.Argument(help="Model file, or 'default' for the packaged student.")
    ],
    structures: Annotated[
        Path | None,
        typer.Argument(
            help="What to evaluate: anything ASE reads. Default: O on Pt(111)."
        ),
    ] = None,
    *,
    device: Annotated[
        str, typer.Option(help="'cpu', 'cuda', or 'auto' for a GPU where there is one.")
    ] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Precision.")] = "float32",
    compile_: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Default: on a GPU, and where crack-md compile has left code.",
        ),
    ] = None,
    atoms: Annotated[
        str, typer.Option(help="Sizes of the default slabs.")
    ] = DEFAULT_ATOMS,
    batch: Annotated[
        int,
        typer.Option(
            min=0, help="Copies of the smallest structure in a batch; 0 for none."
        ),
    ] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Calls behind a median.")] = 20,
    limit_s: Annotated[
        float, typer.Option(min=0.0, help="Seconds for the calls of one structure.")
    ] = 60.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write all figures there.")
    ] = None,
) -> None:
    """Measure latency, throughput, memory and cold start of a model on this machine.

    Times are medians of calls from atoms to energy and forces, moved a little before
    each; a step of molecular dynamics takes as long. Exit code 2: unusable input.
    """
    from crack_md.bench.cold_start import cold_start
    from crack_md.bench.speed import SpeedTest

    sizes = _sizes(atoms)
    compile_option: Any = "auto" if compile_ is None else compile_
    options = {"device": device, "dtype": dtype, "compile": compile_option}
    test = SpeedTest(model, repeats=repeats, limit_s=limit_s, **options)
    found = _structures(structures, sizes, test.calculator.metadata)
    with show_progress("structures", len(found) + bool(batch), quiet=False) as show:
        rows = []
        for row in _rows(test, found, batch):
            rows.append(row)
            show(len(rows))
    smallest = min((one for _, one in found), key=len)
    started = cold_start(model, smallest, **options)
    machine = {
        "device": _device_name(test),
        "python": platform.python_version(),
        **_versions(),
    }
    if json_file is not None:
        content = {
            "model": model,
            "options": options,
            "machine": machine,
            "cold_start_s": dataclasses.asdict(started) | {"total_s": started.total_s},
            "rows": [_record(row) for row in rows],
        }
        json_file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    console = Console()
    _print_table(console, rows)
    console.print(
        f"cold start {started.total_s:.1f} s: libraries {started.import_s:.1f}, model "
        f"{started.load_s:.1f}, first call {started.first_s:.1f}"
    )
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))


def compile_model(
    model: Annotated[
        str, typer.Argument(help="Model file, or 'default' for the packaged student.")
    ],
    *,
    dtype: Annotated[Dtype, typer.Option(help="Precision.")] = "float32",
) -> None:
    """Compile a model for this processor, once for structures of any size.

    Calculators and commands on a CPU take the code from then on. It takes a minute or
    more, and a C++ compiler. Exit code 2: it cannot be compiled, or answers otherwise.
    """
    import torch

    from crack_md.bench.timing import seconds_per_call, summary
    from crack_md.calculators.crack import load_members
    from crack_md.calculators.engine import rattled_crystals
    from crack_md.calculators.packaged import PackagedEngine, package_of
    from crack_md.calculators.packages import package_path
    from crack_md.neighbors import build_graph

    (loaded,) = load_members([model], torch.device("cpu"), dtype)
    package_of(loaded)
    threads = torch.get_num_threads()
    typer.echo(
        f"compiled for {threads} thread{'s' * (threads > 1)}, and checked: "
        f"{package_path(loaded)}"
    )
    for atoms in rattled_crystals(loaded):
        graph = build_graph(atoms, loaded.rule, dtype=loaded.dtype)
        calls = [partial(one, graph) for one in (loaded, PackagedEngine(loaded))]
        for call in calls:
            call()
        plain, compiled = (summary(seconds_per_call(c, 5)).low_s * 1e3 for c in calls)
        typer.echo(
            f"{graph.n_atoms} atoms: {compiled:.2f} ms instead of {plain:.2f} ms"
        )


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(bench)
    app.command()(score)
    app.command("compile")(compile_model)
    app.command()(doctor)


def doctor(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
) -> None:
    """Check this installation: versions, devices, extras, and what models compute.

    Every packaged model computes O on Pt(111) and is compared with the numbers that it
    gave when it was made. Exit code 1: something is broken; missing extras are not.
    """
    from crack_md.bench.doctor import check_installation

    findings = check_installation()
    broken = [one for one in findings if one.fault]
    if as_json:
        rows = [dataclasses.asdict(one) for one in findings]
        content = {"whole": not broken, "findings": rows}
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        facts = {one.name: one.value for one in findings}
        end = f"{len(broken)} broken" if broken else "nothing is broken"
        print_facts(facts, end)
    for one in broken:
        typer.echo(f"broken: {one.name}: {' '.join(one.fault.split())}", err=True)
    if broken:
        raise typer.Exit(FAILED)


def _rows(
    test: "SpeedTest", structures: list[tuple[str, Atoms]], batch: int
) -> "Iterator[Speed | tuple[str, str]]":
    """Yield what was measured, or name and reason where it failed."""
    cases = [(name, partial(test.single, one, name=name)) for name, one in structures]
    if batch:
        name, smallest = min(structures, key=lambda pair: len(pair[1]))
        many = f"{batch} × {name}"
        cases.append((many, partial(test.batch, smallest, batch, name=many)))
    for name, measure in cases:
        try:
            yield measure()
        except StructureError:
            raise
        except CrackError as error:
            yield name, str(error)


def _structures(
    path: Path | None, sizes: list[int], metadata: "ModelMetadata"
) -> list[tuple[str, Atoms]]:
    from crack_md.bench.speed import platinum_slab
    from crack_md.data.readers import read_structures

    if path is not None:
        return [(one.get_chemical_formula(), one) for one in read_structures(path)]
    refusal = describe_unknown_elements(
        ["Pt", "O"],
        [chemical_symbols[z] for z in metadata.elements],
        of=", which the default structures, O on Pt(111), hold",
    )
    if refusal:
        raise ConfigError(
            f"{refusal}; name a file of structures: crack-md bench MODEL STRUCTURES"
        )
    return [("O/Pt(111)", platinum_slab(size)) for size in sizes]


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(word) for word in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 2:
        raise ConfigError(
            f"cannot read --atoms '{text}'; expected numbers such as 46,81,1000"
        )
    return sizes


def _record(row: "Speed | tuple[str, str]") -> dict[str, Any]:
    if isinstance(row, tuple):
        return {"name": row[0], "not_run": row[1]}
    extra = {"atom_steps_per_s": row.atom_steps_per_s, "ns_per_day": row.ns_per_day}
    return dataclasses.asdict(row) | extra | {"not_run": None}


def _print_table(console: Console, rows: "list[Speed | tuple[str, str]]") -> None:
    cells = [
        (
            row.name,
            str(row.n_atoms),
            f"{row.first_s:.2f}",
            f"{1e3 * row.latency.median_s:,.1f}",
            f"{1e3 * row.latency.low_s:,.1f}–{1e3 * row.latency.high_s:,.1f}",
            f"{row.atom_steps_per_s:,.0f}",
            "" if row.ns_per_day is None else f"{row.ns_per_day:.3f}",
            f"{row.peak_bytes / 1e6:,.0f}",
        )
        for row in rows
        if not isinstance(row, tuple)
    ]
    table, left_out = build_table(COLUMNS, cells, width=console.width)
    console.print(table)
    for row in rows:
        if isinstance(row, tuple):
            console.print(Text(f"{row[0]}: not run: {row[1]}"))
    if missing := explain_left_out(left_out, "--json"):
        console.print(missing)


def _device_name(test: "SpeedTest") -> str:
    import torch

    device = test.calculator.device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)"


def _versions() -> dict[str, str]:
    import torch

    from crack_md import __version__

    return {"torch": torch.__version__, "crack-md": __version__}


def score(
    reactions: Annotated[
        Path, typer.Argument(help="Reactions as CatBench has them: a JSON file.")
    ],
    *,
    model: Annotated[str, typer.Option(help=f"{MODEL_HELP}.")] = "default",
    out: Annotated[
        Path, typer.Option(help="Folder for results; a stopped run in it goes on.")
    ] = Path("score-results"),
    repeats: Annotated[
        int,
        typer.Option(
            min=1, help="Passes over each; 1 looks for no failure to reproduce."
        ),
    ] = 3,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a model on adsorption energies of DFT by CatBench's definitions.

    Relaxes clean and covered slabs and gas molecules; writes scores.csv (a row per
    reaction) and summary.json, and prints one line: reactions with an energy, MAE over
    these, MAE and part of those that are normal. Exit code 1: no reaction has an
    energy; 2: unusable input.
    """
    from crack_md.api.scoring import score as score_reactions
    from crack_md.workflows.scoring.reactions import read_reactions

    found, _ = read_reactions(reactions)  # before a model is loaded
    calculator, info = load_named(model, device)
    with explain_interruption(out), show_events() as report:
        scores = score_reactions(
            reactions, calculator, out=out, repeats=repeats, model=info, report=report
        )
    if as_json:
        typer.echo(json.dumps(scores.summary, indent=2, ensure_ascii=False))
    else:
        used = {gas for reaction in found for gas in reaction.gases}
        taken = {gas: e for gas, e in info.gas_references.items() if gas in used}
        _print_score(scores.score, taken, reactions, model, out)
    if not scores.score.n_valid:
        raise typer.Exit(FAILED)


def _print_score(
    score: "Score", gases: dict[str, float], reactions: Path, model: str, out: Path
) -> None:
    typer.echo(f"{model} on {reactions.name}: {score.line}")
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(score.counts.items()))
    typer.echo(f"of these: {counts}")
    if score.shifts_eV:
        shifts = ", ".join(f"{name} {eV:+.2f}" for name, eV in score.shifts_eV.items())
        typer.echo(
            f"after a shift per adsorbate ({shifts} eV): total MAE "
            f"{score.mae_total_shifted_eV:.3f} eV, normal MAE "
            f"{score.mae_normal_shifted_eV or float('nan'):.3f} eV, normal rate "
            f"{100 * (score.normal_rate_shifted or 0.0):.1f} %"
        )
    if gases:
        told = ", ".join(f"{name} {energy:.3f}" for name, energy in gases.items())
        typer.echo(f"gas energies that the model brings, not computed: {told} eV")
    typer.echo(f"written to {out}/: scores.csv, summary.json")
