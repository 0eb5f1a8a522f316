"""``crack-md compare``: every method of a study on equal terms."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crack_md.cli.common import hush
from crack_md.errors import MissingDependencyError

if TYPE_CHECKING:
    from crack_md.training.compare.plan import Plan
    from crack_md.training.compare.summary import Summary


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
    from crack_md.training.compare.config import load_study
    from crack_md.training.compare.plan import plan_study

    plan = plan_study(
        load_study(study, overrides or []), only=only or (), source=str(study)
    )
    stopped_by = None if table_only else _run(plan, quiet=quiet)
    summary = _write(plan)
    if not quiet:
        from crack_md.training.compare.tables import markdown

        typer.echo(markdown(summary))
    if stopped_by is not None:
        typer.echo(
            f"stopped by {stopped_by}; the same command continues from there", err=True
        )
        raise typer.Exit(128 + signal.Signals[stopped_by].value)
    if not table_only and any(row.errors for row in summary.rows):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(compare)


def _run(plan: "Plan", *, quiet: bool) -> str | None:
    try:
        from crack_md.training.compare.study import run_study
        from crack_md.training.progress import Watch
    except ImportError as error:
        raise MissingDependencyError.of(
            str(error.name), extra="train", purpose="training"
        ) from None
    return run_study(plan, watch=Watch(shows=not quiet))


def _write(plan: "Plan") -> "Summary":
    from crack_md.plots.study import write_figures
    from crack_md.training.compare.tables import write_tables

    summary = write_tables(plan)
    write_figures(summary, plan.study.folder)
    return summary
