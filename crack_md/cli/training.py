"""Commands about training: train, evaluate, compare, distil."""

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from crack_md.cli.common import Heading, build_table, explain_left_out, hush
from crack_md.errors import DataError
from crack_md.progress import show_progress

if TYPE_CHECKING:
    from crack_md.models.force_field import ForceField
    from crack_md.study.plan import Plan
    from crack_md.study.summary import StudySummary
    from crack_md.training.evaluation import Evaluation
    from crack_md.training.inspection import Inspection


def train(
    config: Annotated[
        Path,
        typer.Argument(help="Training recipe, a YAML file such as configs/tiny.yaml."),
    ],
    *,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting, e.g. --set optimizer.lr=1e-4; may be repeated.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option(help="Print nothing but errors.", callback=hush)
    ] = False,
) -> None:
    """Distil a student as a recipe says. The same command continues a stopped run."""
    # before PyTorch is loaded: threads of several processes would tell its developers
    # that this student has no weight without a slope
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from crack_md.api.runs import train as run

    summary = run(config, overrides or [], quiet=quiet)
    if summary.stopped_by is not None:
        typer.echo(
            f"stopped by {summary.stopped_by} at step {summary.step}; "
            "the same command continues from there",
            err=True,
        )
        raise typer.Exit(128 + signal.Signals[summary.stopped_by].value)


def _register_train(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(train)


Against = Literal["labels", "teacher"]
Split = Literal["train", "val", "test", "all"]


def evaluate(
    student: Annotated[
        str, typer.Argument(help="Model file, or 'default' for the packaged student.")
    ],
    data: Annotated[
        Path, typer.Argument(help="Labelled dataset (aselmdb, db, extxyz).")
    ],
    *,
    split: Annotated[
        Split, typer.Option(help="Which frames; 'all' for sets without splits.")
    ] = "test",
    against: Annotated[
        Against,
        typer.Option(help="Compare with the dataset's labels or with its teacher's."),
    ] = "labels",
    head: Annotated[
        Path | None,
        typer.Option(
            help="feature_head.pt of the training run, for embedding metrics. "
            "Default: the one beside the model, if there is one."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Also write report.html there: parity, errors per element, map of "
            "embeddings, training curves, worst frames.",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Training run for the curves of the report. Default: the folder of "
            "the model.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames per pass.")] = 32,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
) -> None:
    """Measure a model on labelled frames, beside what no model would reach."""
    from crack_md.training.evaluation import evaluate as measure
    from crack_md.training.evaluation import known_frames
    from crack_md.training.inspection import inspect_model
    from crack_md.training.loop.build import build_frames
    from crack_md.training.loop.heads import read_head

    model, path = _model(student)
    labelled = _frames(data, split, against)
    known = known_frames(model, labelled)
    if not known:
        raise DataError(f"every frame of {data} has elements unknown to {path}")
    frames, feature_head = build_frames(known, model), read_head(head, beside=path)
    settings: Any = {
        "head": feature_head,
        "against": against,
        "batch_size": batch_size,
    }
    with show_progress("frames", len(frames), quiet=False) as show:
        found = measure(model, frames, report=show, **settings)
    page = None
    if report is not None:
        with show_progress("frames of the page", len(frames), quiet=False) as show:
            seen = inspect_model(model, frames, report=show, **settings)
        page = _write_report(report, model, path, run or path.parent, found, seen)
    n_left_out = len(labelled) - len(known)
    if as_json:
        typer.echo(json.dumps(found.as_dict() | {"n_left_out": n_left_out}, indent=2))
        return
    _print_table(found)
    if n_left_out:
        typer.echo(
            f"left out {n_left_out} of {len(labelled)} frames, which have elements "
            "unknown to the model"
        )
    if found.embedding_skipped:
        typer.echo(f"no embedding metrics: {found.embedding_skipped}")
    if page is not None:
        typer.echo(f"wrote {page}")


def _register_evaluate(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(evaluate)


def _write_report(
    folder: Path,
    model: "ForceField",
    path: Path,
    run: Path,
    found: "Evaluation",
    seen: "Inspection",
) -> Path:
    from crack_md.plots.evaluation_report import Subject, write_report
    from crack_md.training.loop.run import RunFolder

    subject = Subject(
        title=f"{path.parent.name}/{path.name}",
        command=shlex.join(["crack-md", *sys.argv[1:]]),
        provenance=model.metadata.provenance,
        sha256=model.metadata.sha256,
        metrics=RunFolder(run, writes=False).metrics(),
    )
    return write_report(folder, subject, found, seen)


def _model(name: str) -> tuple[Any, Path]:
    from crack_md.models.checkpoint import load_model
    from crack_md.models.registry import model_path

    path = model_path(name)
    return load_model(path), path


def _frames(data: Path, split: Split, against: Against) -> Any:
    from crack_md.data.dataset import read_dataset

    dataset = read_dataset(data)
    frames = dataset.structures if split == "all" else dataset.select(split)
    if not frames:
        raise DataError(f"{data} has no frames of split '{split}'; try --split all")
    if against == "teacher" and any(frame.teacher is None for frame in frames):
        raise DataError(
            f"{data} has frames without teacher labels; use --against labels, or label "
            "it with: crack-md label"
        )
    return frames


def _print_table(found: "Evaluation") -> None:
    from crack_md.training.evaluation import LEGEND, METRICS, metric_rows

    console = Console()
    headings = [Heading("frames of", is_text=True)] + [
        Heading(narrow, drop=DROPPED.get(key, 0))
        for key, (_, narrow, _) in METRICS.items()
    ]
    table, left_out = build_table(headings, metric_rows(found), width=console.width)
    console.print(f"errors against the {found.against}")
    console.print(table)
    for line in (LEGEND, explain_left_out(left_out, "--json")):
        if line is not None:
            console.print(line, style="dim")


DROPPED = {
    "embedding_mae": 4,
    "energy_mae_meV": 3,
    "mean_energy_baseline_meV_per_atom": 2,
    "zero_force_baseline_meV_per_A": 1,
}
"""Columns of the table that may go where room is short, the highest number first."""


def compare(
    study: Annotated[
        Path,
        typer.Argument(
            help="Study file, a YAML such as configs/study_same_architecture.yaml."
        ),
    ],
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD", help="Only this method; may be repeated."),
    ] = None,
    table_only: Annotated[
        bool,
        typer.Option("--table-only", help="Train nothing: tables of what is there."),
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting, e.g. --set seeds=[1] or "
            "--set base.run.max_steps=50; may be repeated.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option(help="Print nothing but errors.", callback=hush)
    ] = False,
) -> None:
    """Train methods x seeds x budgets and write the table of the paper.

    The same command continues a stopped study, tries failed runs again and leaves
    finished ones alone.
    """
    from crack_md.study.plan import load_study, plan_study

    plan = plan_study(
        load_study(study, overrides or []), only=only or (), source=str(study)
    )
    stopped_by = None if table_only else _run(plan, quiet=quiet)
    summary = _write(plan)
    if not quiet:
        from crack_md.study.tables import markdown

        typer.echo(markdown(summary, width=Console().width))
    if stopped_by is not None:
        typer.echo(
            f"stopped by {stopped_by}; the same command continues from there", err=True
        )
        raise typer.Exit(128 + signal.Signals[stopped_by].value)
    if not table_only and any(row.errors for row in summary.rows):
        raise typer.Exit(1)


def _register_compare(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(compare)


def _run(plan: "Plan", *, quiet: bool) -> str | None:
    from crack_md.study.study import run_study
    from crack_md.training.loop.monitor import RunMonitor

    return run_study(plan, watch=RunMonitor(shows=not quiet))


def _write(plan: "Plan") -> "StudySummary":
    from crack_md.plots.study import write_figures
    from crack_md.study.tables import write_tables

    summary = write_tables(plan)
    write_figures(summary, plan.study.folder)
    return summary


def distil(
    loop: Annotated[
        Path, typer.Argument(help="A YAML file such as configs/distil_tiny.yaml.")
    ],
    *,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting, e.g. --set select.budget=50; may be repeated.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option(help="Print nothing but errors.", callback=hush)
    ] = False,
) -> None:
    """Distil a student in rounds: it explores, the teacher labels its worst frames.

    Prints a table of what each round gained. The same command continues a loop that was
    stopped, at any moment.
    """
    from crack_md.training.on_policy.config import load_loop
    from crack_md.training.on_policy.folder import LoopFolder
    from crack_md.training.on_policy.rounds import printed, rows_of, run_loop

    def say(line: str) -> None:
        if not quiet:
            typer.echo(line, err=True)

    config = load_loop(loop, overrides or [])
    stopped_by = run_loop(config, quiet=quiet, say=say)
    if not quiet:
        typer.echo(printed(rows_of(LoopFolder(config.folder), config.rounds)))
    if stopped_by is not None:
        typer.echo(
            f"stopped by {stopped_by}; the same command continues from there", err=True
        )
        raise typer.Exit(128 + signal.Signals[stopped_by].value)


def _register_distil(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(distil)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    _register_train(app)
    _register_evaluate(app)
    _register_compare(app)
    _register_distil(app)
