"""Score a model at what it is made for: O* adsorption on metal surfaces.

    python benchmarks/screening.py relax examples/surfaces.db --model default --out DIR
    python benchmarks/screening.py score --model default --out DIR --json scores.json

`relax` screens a file of slabs with any model (the packaged student, a model file,
`emt`, or a teacher such as `nequix:WEIGHTS.nqx`) and copies the table of sites to
`--table`. `score` compares a model with DFT on two published sets (see dft_sets.py),
with published energies of pure metals (literature.py), and with its teacher on all of
them: relative to Pt(111), or after one constant shift, because functionals and gas
references differ.

Models need not be there: `--table` and `--values` take what one has said before. What
`score` computes is kept in DIR, and a stopped run goes on. A model that does not know
all elements is scored on what it knows.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Collection
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import dft_sets, validation
from benchmarks.adsorption_values import Value, compute_values, read_values
from benchmarks.models import benchmark_potential
from benchmarks.scores import Scores
from crack_md.progress import ProgressEvent
from crack_md.structures import read_entries
from crack_md.workflows.relax.store import open_store
from crack_md.workflows.screening.plan import ScreenSettings
from crack_md.workflows.screening.screen import screen_slabs
from crack_md.workflows.screening.tables import write_tables

HERE = Path(__file__).resolve().parent
TEACHER = "nequix-oam-1"
DFT_PARTS = ("gpaw", "xu_kitchin")
PARTS = ("teacher", "literature", *DFT_PARTS)


def relax_surfaces(
    surfaces: Path, *, model: str, out: Path, only: Collection[str] | None = None
) -> Path:
    """Screen a file of slabs with a model and return the table of its sites.

    Args:
        surfaces: any file of slabs.
        model: what `benchmark_potential` takes.
        out: the folder of results; a stopped run goes on.
        only: names of the slabs that are wanted; all where left out.
    """
    calculator, info = benchmark_potential(model)
    settings = ScreenSettings()
    with open_store(out, settings.conditions(info)) as store:
        result = screen_slabs(
            [e for e in read_entries(surfaces) if only is None or e.name in only],
            calculator,
            model=info,
            store=store,
            settings=settings,
            report=_report,
        )
        write_tables(result, out)
    return out / "sites.csv"


def print_scores(scores: Scores) -> None:
    """Print one line per comparison."""
    print(f"{'comparison':32} {'n':>4} {'MAE':>6} {'shifted':>7} {'rho':>6} {'R':>6}")
    columns = ("MAE_eV", "MAE_after_shift_eV", "spearman", "pearson")
    for part, content in scores.items():
        for name, entry in content.items() if isinstance(content, dict) else ():
            if isinstance(entry, dict) and "MAE_after_shift_eV" in entry:
                numbers = [_number(entry.get(column)) for column in columns]
                print(f"{part + ' ' + name:32} {entry['n']:4d}", *numbers)
            elif isinstance(entry, float):
                print(f"{part + ' ' + name:32} {entry:11.3f}")


def _number(value: float | None) -> str:
    return "     –" if value is None else f"{value:6.3f}"


def _report(step: ProgressEvent) -> None:
    print(f"{step.done}/{step.total} {step.what} {step.status}", flush=True)


def _report_value(number: int, total: int, value: Value) -> None:
    print(f"{number}/{total} {value.name} {value.site} {value.status}", flush=True)


def _score(options: argparse.Namespace) -> None:
    scores: Scores = {"model": options.model}
    parts = set(options.parts.split(","))
    if parts & set(DFT_PARTS) and not dft_sets.references().is_dir():
        print(
            f"no folder {dft_sets.references()}: the comparisons with DFT are left out "
            "(CRACK_MD_REFERENCES names the folder above it)"
        )
        parts -= set(DFT_PARTS)
    start = time.monotonic()
    if parts & {"teacher", "literature"}:
        table = options.table or relax_surfaces(
            options.surfaces, model=options.model, out=options.out
        )
        if "teacher" in parts and not _same_file(table, options.reference):
            scores["teacher"] = validation.score_against_teacher(
                options.reference, table
            )
        if "literature" in parts:
            scores["literature"] = validation.score_literature(table)
    if parts & set(DFT_PARTS):
        scores |= _score_dft(options, parts)
    scores["seconds"] = round(time.monotonic() - start, 1)
    print_scores(scores)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(scores, indent=2) + "\n")


def _score_dft(options: argparse.Namespace, parts: set[str]) -> Scores:
    """Return the scores on published sets, and on the same pairs against the teacher.

    Pairs are drawn before those that the model does not know are left out: all models
    are asked about the same ones.
    """
    alloys = dft_sets.sample(
        dft_sets.gpaw_pairs(), limit=options.limit, seed=options.seed
    )
    pairs = {"gpaw": alloys, "xu_kitchin": dft_sets.xu_kitchin_pairs()}
    pairs = {name: pairs[name] for name in DFT_PARTS if name in parts}
    if options.values is not None:
        values = read_values(options.values)
    else:
        calculator, info = benchmark_potential(options.model)
        every = [pair for chosen in pairs.values() for pair in chosen]
        values = compute_values(
            dft_sets.only_of(info.elements, every),
            calculator,
            path=options.out / "values.csv",
            sha256=info.sha256,
            max_steps=options.steps,
            report=_report_value,
        )
    judges = {
        "gpaw": validation.score_gpaw,
        "xu_kitchin": validation.score_xu_kitchin,
    }
    scores = {name: judges[name](chosen, values) for name, chosen in pairs.items()}
    if not _same_file(options.values, options.reference_values):
        teacher = read_values(options.reference_values)
        for name, chosen in pairs.items():
            told = validation.score_same_pairs(chosen, teacher, values)
            scores[name]["to_teacher"] = told
    return scores


def _same_file(table: Path | None, reference: Path) -> bool:
    """Return whether the model is the teacher: it is not compared with itself."""
    return table is not None and table.resolve() == reference.resolve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    relaxing = commands.add_parser("relax", help="screen slabs with any model")
    relaxing.add_argument("surfaces", type=Path)
    scoring = commands.add_parser("score", help="compare with DFT and teacher")
    surfaces = HERE.parent / "examples" / "surfaces.db"
    scoring.add_argument("--surfaces", type=Path, default=surfaces)
    reference = HERE / "reference" / f"{TEACHER}-sites.csv"
    scoring.add_argument("--reference", type=Path, default=reference)
    scoring.add_argument("--values", type=Path, help="table of values on the DFT sets")
    reference = HERE / "reference" / f"{TEACHER}-values.csv"
    scoring.add_argument("--reference-values", type=Path, default=reference)
    scoring.add_argument("--parts", default=",".join(PARTS))
    scoring.add_argument("--limit", type=int, default=60, help="alloy slabs of GPAW")
    scoring.add_argument("--seed", type=int, default=0)
    scoring.add_argument("--steps", type=int, default=dft_sets.STEPS)
    scoring.add_argument("--json", type=Path)
    for command in (relaxing, scoring):
        command.add_argument("--model", default="default")
        command.add_argument("--out", type=Path, default=Path("runs/screening"))
        command.add_argument("--table", type=Path, help="table of sites")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run one of the two commands."""
    options = _parser().parse_args(arguments)
    if options.command == "score":
        _score(options)
        return
    table = relax_surfaces(options.surfaces, model=options.model, out=options.out)
    if options.table is not None:
        options.table.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(table, options.table)


if __name__ == "__main__":
    main()
