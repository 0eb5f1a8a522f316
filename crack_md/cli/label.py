"""Commands that make training data: ``crack-md augment`` and ``crack-md label``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from crack_md.cli.common import hush
from crack_md.progress import show_progress

Features = Literal["invariant", "all", "none"]
TEACHER_HELP = (
    "Who labels: nequix:WEIGHTS.nqx, tensornet:FOLDER, eqv2:CHECKPOINT.pt, "
    "fairchem:CHECKPOINT.pt#TASK, recipe:FILE.yaml, a student.pt, default (the "
    "packaged student), or emt (trials)."
)
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.", callback=hush)]
WORKERS_HELP = "Processes, each with a teacher of its own; at most one per core."


def augment(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Structure files and folders (db, aselmdb, extxyz, traj, cif, POSCAR) "
            "and at most one recipe (.yaml) that says which frames to make."
        ),
    ],
    *,
    out: Annotated[
        Path, typer.Option(help="File of frames: .aselmdb, .db or .extxyz.")
    ],
    teacher: Annotated[
        str | None,
        typer.Option(help=TEACHER_HELP + " Needed for relaxed and thermal frames."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Overrides the seed of the recipe.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many structures.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help=WORKERS_HELP)] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Make rattled, strained, relaxed and thermal frames of structures.

    Without a recipe every structure gives four rattled and two strained frames, and
    with a teacher also frames along a relaxation and a short run at 300-800 K. A recipe
    can also generate the structures: slabs of metals, alloys, skins and sandwiches,
    clean and with O* and OH*, bulks, molecules, dimers. It may ask for sheared, hot,
    pushed, pulled and stretched frames, vacancies and contacts, which need no teacher.
    The same command continues a run that was stopped.
    """
    from crack_md.data.frames import count_bases, write_frames
    from crack_md.data.recipes import default_recipe, read_recipe
    from crack_md.errors import ConfigError

    recipes = [path for path in sources if path.suffix in (".yaml", ".yml")]
    if len(recipes) > 1:
        raise ConfigError(f"{len(recipes)} recipes given; expected at most one")
    recipe = read_recipe(recipes[0]) if recipes else default_recipe(teacher is not None)
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    files = [path for path in sources if path not in recipes]
    total = None if files else count_bases(recipe, limit=limit)
    with show_progress("structures", total, quiet=quiet) as show:
        frames = write_frames(
            recipe,
            out,
            sources=files,
            teacher=teacher,
            workers=workers,
            limit=limit,
            overwrite=overwrite,
            report=lambda done, _: show(done),
        )
    typer.echo(f"{frames} frames in {out}")


def label(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Structure files and folders, such as those of augment."),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Dataset: .aselmdb, .db or .extxyz.")],
    teacher: Annotated[str | None, typer.Option(help=TEACHER_HELP)] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="Label recipe (.yaml) instead of one teacher: weighted increments of "
            "several, with their spread."
        ),
    ] = None,
    hold_out: Annotated[
        str,
        typer.Option(
            help="Combinations of elements such as Ag-Pd,Ni-Pt-Cu: structures with all "
            "elements of one, in any proportion, become the test set."
        ),
    ] = "",
    val: Annotated[
        float, typer.Option(min=0, max=1, help="Share of groups for validation.")
    ] = 0.05,
    test: Annotated[
        float, typer.Option(min=0, max=1, help="Share of groups for testing.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Chooses the groups.")] = 0,
    leave_out: Annotated[
        str,
        typer.Option(
            help="Elements or combinations such as Ni,Co-O whose structures are not "
            "labelled: those that the teacher does not know or gets wrong."
        ),
    ] = "",
    features: Annotated[
        Features,
        typer.Option(
            help="Node features to store: of degree 0, of all degrees (EquiformerV2 "
            "teachers), or none."
        ),
    ] = "invariant",
    jacobian_rows: Annotated[
        int,
        typer.Option(
            min=0,
            help="Rows of the force Jacobian per structure, for the hessian loss; each "
            "takes two more evaluations.",
        ),
    ] = 0,
    jacobian_step: Annotated[
        float,
        typer.Option(
            min=1e-6, help="How far coordinates are moved for its differences, Å."
        ),
    ] = 0.01,
    only_features: Annotated[
        bool,
        typer.Option(
            "--only-features",
            help="Take node features alone from the teacher, as for a packed set: "
            "energies and forces of the source stand for its own.",
        ),
    ] = False,
    largest_force: Annotated[
        float, typer.Option(min=0, help="Leave out structures beyond this, eV/Å.")
    ] = 15.0,
    workers: Annotated[int, typer.Option(min=1, help=WORKERS_HELP)] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Store a teacher's energies, forces and node features of structures.

    The dataset is all that training needs: no teacher runs beside the student. Energies
    and forces that a source brings (DFT) stay the labels of the task loss. The same
    command continues a run that was stopped.
    """
    from crack_md.data.labelling import SplitRule, label_structures
    from crack_md.data.readers import count_structures
    from crack_md.data.splits import parse_combinations
    from crack_md.data.wanted import Wanted
    from crack_md.errors import ConfigError

    if (teacher is None) == (recipe is None):
        raise ConfigError("name either --teacher or --recipe: who is to label?")
    rule = SplitRule(
        parse_combinations(hold_out, at_least=2), val=val, test=test, seed=seed
    )
    total = count_structures(sources)
    with show_progress("structures", total, quiet=quiet) as show:
        counts = label_structures(
            sources,
            out,
            teacher=f"recipe:{recipe}" if teacher is None else teacher,
            split=rule,
            leave_out=parse_combinations(leave_out),
            wanted=Wanted(features, jacobian_rows, jacobian_step),
            largest_force=largest_force,
            only_features=only_features,
            workers=workers,
            overwrite=overwrite,
            report=show,
        )
    typer.echo(f"{counts.labelled} structures in {out}")
    for line in counts.lines():
        typer.echo(line)
    if counts.dropped:
        typer.echo(f"{counts.dropped} left out: forces above {largest_force} eV/Å")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(augment)
    app.command()(label)
