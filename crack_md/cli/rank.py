"""``crack-md rank`` and ``crack-md report``: intervals of a ranking, and its page."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from crack_md.cli.common import print_json
from crack_md.progress import show_progress

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator

    from crack_md.workflows.model_info import ModelInfo
    from crack_md.workflows.ranking.calibration import ReferenceValue
    from crack_md.workflows.ranking.errors import AssumedErrors
    from crack_md.workflows.ranking.results import Rescored
    from crack_md.workflows.screening.reader import SavedScreening

Correction = Literal["auto", "none", "offset", "line"]
Code = Literal["vasp", "espresso", "gpaw"]
MODEL_HELP = (
    "'default', a model file, nequix:WEIGHTS.nqx, eqv2:CHECKPOINT.pt, "
    "fairchem:CHECKPOINT.pt#TASK or 'emt'"
)


def rank(
    folder: Annotated[
        Path, typer.Argument(help="Results of crack-md screen (its --out).")
    ],
    *,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DFT",
            help="Correct by DFT adsorption energies: a CSV file with columns slab, "
            "dE_eV (against H2O and H2) and, if not the best, site; or the folder that "
            "--write made, with results in it.",
        ),
    ] = None,
    correction: Annotated[
        Correction,
        typer.Option(
            help="auto: an offset for fewer than four DFT values, a line from four on; "
            "none: no correction, errors measured on the DFT values."
        ),
    ] = "auto",
    rescore: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help=f"Compute the best --top slabs again by another model: {MODEL_HELP}.",
        ),
    ] = None,
    relax: Annotated[
        bool,
        typer.Option(
            "--relax", help="With --rescore: relax on, instead of single points."
        ),
    ] = False,
    committee: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Another member of a committee, whose disagreement widens intervals; "
            "may be repeated.",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="How many slabs are 'the best'.")
    ] = 10,
    level: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Probability of intervals.")
    ] = 0.95,
    error: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Error of one energy, different for each slab, eV. Default: the "
            "spread of the model's labels where it carries them, else 0.12; DFT values "
            "replace it.",
        ),
    ] = None,
    shared_error: Annotated[
        float | None,
        typer.Option(
            min=0, help="Error common to all energies, eV. Default: 0.10; likewise."
        ),
    ] = None,
    write: Annotated[
        Code | None,
        typer.Option(
            help="Write inputs for DFT of the best --top slabs into FOLDER/dft-CODE: "
            "vasp, espresso or gpaw; --calibrate reads the results from there."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    device: Annotated[
        str, typer.Option(help="'cpu', 'cuda', or 'auto' for a GPU where there is one.")
    ] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print ranking.json and nothing else.")
    ] = False,
) -> None:
    """Give a screening error bars: intervals, rank probabilities, a shortlist.

    Reads a results folder and writes ranking.csv and ranking.json into it; report.html
    is written anew where there is one. What other models computed is kept in
    rescored.jsonl, so that a stopped run goes on. Exit code 2: unusable input.
    """
    from crack_md.cli.rankings import print_ranking
    from crack_md.workflows.ranking.rank import rank_slabs
    from crack_md.workflows.ranking.results import RankSettings, write_ranking
    from crack_md.workflows.screening.reader import read_screening

    # everything that can be wrong with the input is found before a model is loaded
    screening = read_screening(folder)
    _ = screening.volcano
    reference = _reference(calibrate, screening)
    settings = RankSettings(
        top=top,
        level=level,
        seed=seed,
        correction=None if correction == "auto" else correction,
        assumed=_assumed(screening, error, shared_error),
    )
    spread = _committee(screening, committee or [], device)
    rescored = _rescore(screening, rescore, top, relax, device)
    ranking = rank_slabs(
        screening,
        reference=reference,
        rescored=rescored,
        spread_eV=spread,
        settings=settings,
    )
    record = write_ranking(
        ranking,
        folder,
        calibrated_with=str(calibrate) if calibrate else None,
        rescored_with=rescore,
        committee=committee or [],
    )
    if as_json:
        print_json(record)
    else:
        print_ranking(ranking, rescored, folder)
    if write is not None:
        chosen = [slab.slab for slab in ranking.slabs[:top]]
        _write_inputs(screening, chosen, write, folder / f"dft-{write}")
    _renew_report(folder)


def _register_rank(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(rank)


def _reference(
    given: Path | None, screening: "SavedScreening"
) -> "tuple[ReferenceValue, ...]":
    """Return the DFT values of a table, or of finished calculations in a folder."""
    from crack_md.workflows.ranking.calibration import read_reference_values
    from crack_md.workflows.ranking.dft_results import read_dft_values

    if given is None:
        return ()
    read = read_dft_values if given.is_dir() else read_reference_values
    return read(given, screening)


def _write_inputs(
    screening: "SavedScreening", slabs: list[str], code: Code, folder: Path
) -> None:
    """Write inputs for DFT, and say on stderr what they assume."""
    from crack_md.workflows.ranking.dft_codes import header
    from crack_md.workflows.ranking.dft_inputs import write_inputs

    written = write_inputs(screening, slabs, code, folder)
    kept = f", {written.kept} kept as they were" if written.kept else ""
    lines = [f"{len(written.new)} calculations written to {folder}/{kept}"]
    for line in [*lines, *written.notes, *header(code)[1:]]:
        typer.echo(line, err=True)


def _assumed(
    screening: "SavedScreening", error: float | None, shared_error: float | None
) -> "AssumedErrors":
    """Return the errors that are taken for granted, where given as given.

    Without an error by hand, slabs have the spread of the labels of their metals where
    the model of the screening carried it.
    """
    from crack_md.workflows.ranking.errors import AssumedErrors, from_labels

    default = from_labels(screening.label_spreads)
    if error is None and shared_error is None:
        return default
    if error is None and shared_error is not None and default.by_slab_eV:
        return replace(default, shared_eV=shared_error)
    return AssumedErrors(
        independent_eV=default.independent_eV if error is None else error,
        shared_eV=default.shared_eV if shared_error is None else shared_error,
        source="given by hand",
    )


def _rescore(
    screening: "SavedScreening", model: str | None, top: int, relaxes: bool, device: str
) -> "tuple[Rescored, ...]":
    """Return what another model says of the best slabs."""
    from crack_md.workflows.ranking.rescore import rescore

    if model is None:
        return ()
    calculator, info = load_named(model, device)
    total = sum(len(chosen.adsorbed) for chosen in screening.candidates[:top])
    with show_progress("slabs", total, quiet=False) as show:
        return rescore(
            screening,
            calculator,
            model=info,
            top=top,
            relaxes=relaxes,
            report=lambda event: show(event.done),
        )


def _committee(
    screening: "SavedScreening", models: list[str], device: str
) -> Mapping[tuple[str, str], float] | None:
    """Return the spread in eV over the screening and these, by slab and adsorbate."""
    import numpy as np

    from crack_md.workflows.ranking.errors import committee_spread

    everything = len(screening.candidates)
    members = [_rescore(screening, m, everything, False, device) for m in models]
    if not members:
        return None
    spread = {}
    for answers in zip(*members, strict=True):
        energies = [r.dE_eV for r in answers if r.is_usable]
        if energies:
            energies = [answers[0].screened_eV, *energies]
            key = answers[0].slab, answers[0].adsorbate
            spread[key] = float(committee_spread(np.array(energies)))
    return spread


def load_named(name: str, device: str) -> "tuple[BaseCalculator, ModelInfo]":
    """Return the calculator of a model or teacher, and what is known of it."""
    from crack_md.api.inputs import load_potential

    kind, colon, path = name.partition(":")
    if not colon or kind not in ("nequix", "eqv2", "fairchem"):
        return load_potential(name, device=device)
    if kind == "eqv2":  # ours: it knows its gas energies and its kind of forces
        return load_potential(path, device=device)
    import torch
    from ase.data import chemical_symbols

    from crack_md.models.teachers import TeacherCalculator, load_teacher
    from crack_md.workflows.model_info import ModelInfo

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher = load_teacher(name, device=device)
    known = frozenset(chemical_symbols[number] for number in teacher.elements or ())
    reference = teacher.energy_reference
    info = ModelInfo(teacher.name, teacher.sha256, reference, {}, known or None)
    return TeacherCalculator(teacher), info


def _renew_report(folder: Path) -> None:
    """Write report.html again, if there is one: it would show older chances."""
    if (folder / "report.html").is_file():
        from crack_md.plots.screening.report import write_report

        write_report(folder)


def report(
    folder: Annotated[
        Path, typer.Argument(help="Results of crack-md screen (its --out).")
    ],
) -> None:
    """Write report.html: volcano, table, best candidates, anomalies, provenance.

    One file that opens in any browser without a network. With intervals and rank
    probabilities where crack-md rank has been run.
    """
    from crack_md.plots.screening.report import write_report

    typer.echo(f"written to {write_report(folder)}")


def _register_report(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(report)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    _register_rank(app)
    _register_report(app)
