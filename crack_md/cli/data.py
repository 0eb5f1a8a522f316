"""Commands that make datasets: augment, label, pack, prepare."""

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
    from crack_md.data.augment.frames import count_bases, write_frames
    from crack_md.data.augment.recipe import default_recipe, read_recipe
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
    half_features: Annotated[
        bool,
        typer.Option(
            "--half-features",
            help="Store node features in float16: half the size, three digits.",
        ),
    ] = False,
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
    from crack_md.data.labelling import LabelRequest, SplitRule, label_structures
    from crack_md.data.readers import count_structures
    from crack_md.data.splits import parse_combinations
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
            wanted=LabelRequest(features, jacobian_rows, jacobian_step, half_features),
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


def _register_label(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(augment)
    app.command()(label)


def pack(
    data: Annotated[
        Path, typer.Argument(help="Labelled dataset (aselmdb, db, extxyz).")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the packed set.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the set in the folder.")
    ] = False,
) -> None:
    """Write a labelled set without features, compressed, in files below 10 MB.

    Positions are rounded to 1e-5 Å, forces to 1e-4 eV/Å; energies stay exact. Every
    command that takes a dataset takes the folder. Features come back with: crack-md
    label FOLDER --only-features --teacher TEACHER --out FILE.
    """
    from crack_md.data.packed import pack_dataset

    counts = pack_dataset(data, out, overwrite=overwrite)
    typer.echo(
        f"{counts.structures} structures in {out}: {counts.n_bytes / 1e6:.1f} MB"
    )
    if counts.left_out:
        typer.echo(f"left out: {', '.join(counts.left_out)}")


def _register_pack(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(pack)


Out = Annotated[Path, typer.Option(help="Dataset: .aselmdb, .db or .extxyz.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an existing file.")
]
Silent = Annotated[
    bool,
    typer.Option("--quiet", help="No progress bar and no summary.", callback=hush),
]

app = typer.Typer(
    help="Turn public downloads into datasets for label and train.",
    no_args_is_help=True,
)


@app.command()
def oc20(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="As downloaded: S2EF folders or archives (*.extxyz.xz with *.txt) "
            "and archives of relaxations per adsorbate (with system.txt)."
        ),
    ],
    *,
    out: Out,
    adsorbate: Annotated[
        str | None, typer.Option(help="Only systems with this one, such as '*O'.")
    ] = None,
    frames: Annotated[
        Literal["all", "last"],
        typer.Option(help="All frames of relaxations, or the relaxed ones alone."),
    ] = "all",
    reference: Annotated[
        Literal["adsorption", "total"],
        typer.Option(help="Energies relative to clean slab and gas, or total ones."),
    ] = "adsorption",
    mapping: Annotated[
        Path | None,
        typer.Option(
            help="oc20_data_mapping.pkl: adsorbates and anomalies of all systems. It "
            "is read without running the pickle."
        ),
    ] = None,
    normal_only: Annotated[
        bool,
        typer.Option(
            "--normal-only", help="Leave out what the mapping calls anomalous."
        ),
    ] = False,
    largest_force: Annotated[
        float, typer.Option(min=0, help="Leave out frames beyond this, eV/Å.")
    ] = 50.0,
    split: Annotated[
        str | None,
        typer.Option(
            help="Shares of systems, such as val=0.05,test=0.05 (the default), or "
            "train, val or test for all of them."
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(
            help="A list of systems and splits to follow, such as the one that this "
            "command writes beside a dataset."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses the systems.")] = 0,
    skip_broken: Annotated[
        bool,
        typer.Option(
            "--skip-broken", help="Tell of files that cannot be read, and go on."
        ),
    ] = False,
    overwrite: Overwrite = False,
    quiet: Silent = False,
) -> None:
    """Open Catalyst 2020 (OC20): adsorbates on slabs, relaxed with RPBE.

    The list of systems and their splits is written beside the dataset. The same command
    continues a run that was stopped.
    """
    from crack_md.data.prepare.oc20 import LEFT_OUT, OC20Choice, prepare_oc20
    from crack_md.data.prepare.splits import parse_plan, splits_path

    choice = OC20Choice(
        mapping=mapping,
        adsorbate=adsorbate,
        normal_only=normal_only,
        frames=frames,
        reference=reference,
        largest_force=largest_force,
        splits=parse_plan(split, seed=seed, listed=splits),
        skip_broken=skip_broken,
    )
    with show_progress("files", None, quiet=quiet) as show:
        counts = prepare_oc20(
            sources,
            out,
            choice,
            overwrite=overwrite,
            report=show,
            tell=lambda line: typer.echo(line, err=True),
        )
    if quiet:
        return
    _tell_frames(out, counts.frames)
    for reason, number in counts.left_out.items():
        if number:
            typer.echo(f"{number:,} left out: {LEFT_OUT[reason]}")
    typer.echo(f"systems and their splits: {splits_path(out)}")


@app.command()
def rmd17(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="rmd17.tar.bz2, its folder, rmd17_MOLECULE.npz, or files of one split."
        ),
    ],
    *,
    out: Out,
    labels: Annotated[
        Literal["old", "recomputed"],
        typer.Option(
            help="old: MD17's own, with which the frames were sampled; recomputed: "
            "PBE/def2-SVP, for tables of force errors."
        ),
    ],
    molecule: Annotated[
        str | None,
        typer.Option(help="Which one, such as ethanol, of sources with several."),
    ] = None,
    index_folder: Annotated[
        Path | None,
        typer.Option(help="Where index_train_01.csv lies, if not beside the frames."),
    ] = None,
    number: Annotated[int, typer.Option(min=1, max=5, help="Published split.")] = 1,
    val: Annotated[
        float, typer.Option(min=0, max=1, help="Share of training for validation.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(help="Chooses the validation frames.")] = 0,
    overwrite: Overwrite = False,
    quiet: Silent = False,
) -> None:
    """Revised MD17: small molecules, thermostat at 500 K, energies in eV."""
    from crack_md.data.prepare.rmd17 import prepare_rmd17

    counts = prepare_rmd17(
        sources,
        out,
        labels=labels,
        molecule=molecule,
        index_folder=index_folder,
        number=number,
        val=val,
        seed=seed,
        overwrite=overwrite,
    )
    if quiet:
        return
    _tell_frames(out, counts.frames)
    if counts.duplicates:
        typer.echo(f"{counts.duplicates:,} left out: there already")


def _tell_frames(out: Path, frames: dict[str, int]) -> None:
    parts = ", ".join(f"{number:,} {split}" for split, number in frames.items())
    typer.echo(f"{sum(frames.values()):,} frames in {out}: {parts}")


def _register_prepare(parent: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    parent.add_typer(app, name="prepare")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    _register_label(app)
    _register_pack(app)
    _register_prepare(app)
