"""Commands about training: ``crack-md train`` and ``crack-md evaluate``."""

import json
import signal
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from crack_md.errors import DataError, MissingDependencyError

Against = Literal["labels", "teacher"]
Split = Literal["train", "val", "test", "all"]


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
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
) -> None:
    """Distil a student as a recipe says. The same command continues a stopped run."""
    from crack_md.training.config_file import load_config

    try:
        from crack_md.training.train import train as run
    except ImportError as error:
        raise MissingDependencyError.of(
            str(error.name), extra="train", purpose="training"
        ) from None
    summary = run(load_config(config, overrides or []), quiet=quiet)
    if summary.stopped_by is not None:
        typer.echo(
            f"stopped by {summary.stopped_by} at step {summary.step}; "
            "the same command continues from there",
            err=True,
        )
        raise typer.Exit(128 + signal.Signals[summary.stopped_by].value)


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

    model, path = _model(student)
    labelled = _frames(data, split, against)
    known = known_frames(model, labelled)
    if not known:
        raise DataError(f"every frame of {data} has elements unknown to {path}")
    found = measure(
        model,
        build_frames(known, model),
        head=read_head(head, beside=path),
        against=against,
        batch_size=batch_size,
    )
    if as_json:
        n_left_out = len(labelled) - len(known)
        typer.echo(json.dumps(found.as_dict() | {"n_left_out": n_left_out}, indent=2))
        return
    Console().print(_table(found.as_dict()))
    if len(known) < len(labelled):
        typer.echo(
            f"left out {len(labelled) - len(known)} of {len(labelled)} frames, which "
            "have elements unknown to the model"
        )
    if found.embedding_skipped:
        typer.echo(f"no embedding metrics: {found.embedding_skipped}")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(train)
    app.command()(evaluate)


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


def _table(found: dict[str, Any]) -> Table:
    groups = {"all": found["all"]}
    groups |= {name: found[name] for name in ("relaxed", "unrelaxed") if name in found}
    groups |= found["kinds"]
    table = Table(title=f"errors against the {found['against']}", box=box.SIMPLE)
    table.add_column("group", no_wrap=True)
    columns = {
        "n_frames": ("frames", "{:d}"),
        "energy_mae_meV": ("E\nmeV", "{:.1f}"),
        "energy_mae_meV_per_atom": ("E\nmeV/at", "{:.2f}"),
        "mean_energy_baseline_meV_per_atom": ("mean E\nmeV/at", "{:.2f}"),
        "force_mae_meV_per_A": ("F\nmeV/Å", "{:.1f}"),
        "zero_force_baseline_meV_per_A": ("F = 0\nmeV/Å", "{:.1f}"),
        "efwt_percent": ("EFwT\n%", "{:.1f}"),
        "embedding_mae": ("P z\nMAE", "{:.3f}"),
        "embedding_cosine": ("P z\ncos", "{:.3f}"),
    }
    for title, _ in columns.values():
        table.add_column(title, justify="right")
    for name, group in groups.items():
        cells = [
            "-" if group[key] is None else form.format(group[key])
            for key, (_, form) in columns.items()
        ]
        table.add_row(name, *cells)
    return table
