"""``crack-md prepare``: public downloads in, datasets that training reads out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from crack_md.cli.common import hush
from crack_md.progress import show_progress

Out = Annotated[Path, typer.Option(help="Dataset: .aselmdb, .db or .extxyz.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an existing file.")
]
Quiet = Annotated[
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
    quiet: Quiet = False,
) -> None:
    """Open Catalyst 2020 (OC20): adsorbates on slabs, relaxed with RPBE.

    The list of systems and their splits is written beside the dataset. The same command
    continues a run that was stopped.
    """
    from crack_md.data.prepare.oc20 import prepare_oc20
    from crack_md.data.prepare.oc20_choice import LEFT_OUT, OC20Choice
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
    quiet: Quiet = False,
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


def register(parent: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    parent.add_typer(app, name="prepare")
