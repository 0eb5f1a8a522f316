"""``crack-md evaluate``: how good a model is on labelled frames."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from crack_md.errors import DataError

if TYPE_CHECKING:
    from crack_md.models.force_field import ForceField
    from crack_md.training.evaluate import Evaluation
    from crack_md.training.inspection import Inspection

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
    from crack_md.training.build import build_frames
    from crack_md.training.evaluate import evaluate as measure
    from crack_md.training.evaluate import known_frames
    from crack_md.training.heads import read_head
    from crack_md.training.inspection import inspect_model

    model, path = _model(student)
    labelled = _frames(data, split, against)
    known = known_frames(model, labelled)
    if not known:
        raise DataError(f"every frame of {data} has elements unknown to {path}")
    frames, feature_head = build_frames(known, model), read_head(head, beside=path)
    found = measure(
        model, frames, head=feature_head, against=against, batch_size=batch_size
    )
    page = None
    if report is not None:
        seen = inspect_model(
            model, frames, head=feature_head, against=against, batch_size=batch_size
        )
        page = _write_report(report, model, path, run or path.parent, found, seen)
    n_left_out = len(labelled) - len(known)
    if as_json:
        typer.echo(json.dumps(found.as_dict() | {"n_left_out": n_left_out}, indent=2))
        return
    Console().print(_table(found))
    if n_left_out:
        typer.echo(
            f"left out {n_left_out} of {len(labelled)} frames, which have elements "
            "unknown to the model"
        )
    if found.embedding_skipped:
        typer.echo(f"no embedding metrics: {found.embedding_skipped}")
    if page is not None:
        typer.echo(f"wrote {page}")


def register(app: typer.Typer) -> None:
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
    from crack_md.training.run import RunFolder

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


def _table(found: "Evaluation") -> Table:
    from crack_md.training.evaluation_table import METRICS, metric_rows

    table = Table(
        title=f"errors against the {found.against}",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("group", no_wrap=True)
    for _, title, _ in METRICS.values():
        table.add_column(title, justify="right")
    for row in metric_rows(found):
        table.add_row(*row)
    return table
