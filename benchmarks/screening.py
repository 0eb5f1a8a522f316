"""Score a model at what it is made for: O* adsorption on metal surfaces.

    python benchmarks/screening.py relax examples/surfaces.db --model default --out DIR
    python benchmarks/screening.py score --model default --out DIR --json scores.json

`relax` screens a file of slabs with any model (the packaged student, a model file,
`emt`, or `nequix:WEIGHTS.nqx`) and copies the table of sites to `--table`. `score`
compares a model, or such a table (`--table`), with its teacher on the example surfaces,
and the model with DFT on two published sets (see dft_sets.py): relative to Pt(111), or
after one constant shift, because functionals and gas references differ.
"""

import argparse
import csv
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import BaseCalculator
from scipy.stats import pearsonr, spearmanr

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import dft_sets
from benchmarks.models import benchmark_potential
from crack_md.workflows.inputs import read_entries
from crack_md.workflows.results import ScreenSettings
from crack_md.workflows.run import Progress
from crack_md.workflows.screen import screen
from crack_md.workflows.store import open_store
from crack_md.workflows.tables import write_tables

ENERGY = "dE_O_H2O_H2_eV"
Scores = dict[str, Any]


def relax_surfaces(surfaces: Path, *, model: str, out: Path) -> Path:
    """Screen a file of slabs with a model and return the table of its sites."""
    calculator, info = benchmark_potential(model)
    settings = ScreenSettings()
    with open_store(out, settings.conditions(info)) as store:
        result = screen(
            read_entries(surfaces),
            calculator,
            model=info,
            store=store,
            settings=settings,
            report=_report,
        )
        write_tables(result, out)
    return out / "sites.csv"


def agreement(reference: np.ndarray, model: np.ndarray) -> Scores:
    """Return how well one set of energies in eV follows another."""
    error = model - reference
    return {
        "n": len(error),
        "MAE_eV": float(np.abs(error).mean()),
        "MAE_after_shift_eV": float(np.abs(error - np.median(error)).mean()),
        "shift_eV": float(np.median(error)),
        "max_error_eV": float(np.abs(error).max()),
        "spearman": float(spearmanr(reference, model)[0]),
        "pearson": float(pearsonr(reference, model)[0]),
    }


def score_against_teacher(teacher: Path, student: Path) -> Scores:
    """Return the agreement of two tables: per final site, and per slab's best."""
    known, predicted = _energies(teacher), _energies(student)
    both = sorted(known.keys() & predicted.keys())
    slabs = sorted({slab for slab, _ in both})
    best = [
        [min(e for (name, _), e in table.items() if name == slab) for slab in slabs]
        for table in (known, predicted)
    ]
    return {
        "sites": agreement(
            *(np.array([t[k] for k in both]) for t in (known, predicted))
        ),
        "best_site_per_slab": agreement(np.array(best[0]), np.array(best[1])),
        "per_slab_eV": {
            slab: {"teacher": best[0][i], "model": best[1][i]}
            for i, slab in enumerate(slabs)
        },
        "sites_missing": len(known.keys() - predicted.keys()),
    }


def score_gpaw(
    calculator: BaseCalculator,
    *,
    known: frozenset[str] | None,
    limit: int | None,
    seed: int,
    steps: int,
) -> Scores:
    """Return the agreement with DFT on alloys, both relative to Pt(111)."""
    pairs = dft_sets.only_of(known, dft_sets.gpaw_pairs())
    pairs = dft_sets.sample(pairs, limit=limit, seed=seed)
    platinum, *alloys = dft_sets.compare(pairs, calculator, steps=steps)
    dft = np.array([entry.dft - platinum.dft for entry in alloys])
    model = np.array([entry.model - platinum.model for entry in alloys])
    family = np.array([entry.name.split("-")[0] for entry in alloys])
    return {
        "relative_to_Pt111": agreement(dft, model),
        **{
            name: agreement(dft[family == name], model[family == name])
            for name in dft_sets.ALLOYS
            if (family == name).sum() > 2
        },
        "not_converged": sum(not entry.converged for entry in alloys),
        "values": [asdict(entry) for entry in (platinum, *alloys)],
    }


def score_xu_kitchin(
    calculator: BaseCalculator, *, known: frozenset[str] | None, steps: int
) -> Scores:
    """Return the agreement with DFT on pure metals: energies and order of sites."""
    pairs = dft_sets.only_of(known, dft_sets.xu_kitchin_pairs())
    values = dft_sets.compare(pairs, calculator, steps=steps)
    dft = np.array([entry.dft for entry in values])
    model = np.array([entry.model for entry in values])
    metals = np.array([entry.name for entry in values])
    sites = np.array([entry.site for entry in values])
    right, pairs, best = 0, 0, 0
    for metal in dict.fromkeys(metals):
        of_metal = np.flatnonzero(metals == metal)
        best += int(model[of_metal].argmin() == dft[of_metal].argmin())
        for n, i in enumerate(of_metal):
            for j in of_metal[:n]:
                pairs += 1
                right += int((model[i] < model[j]) == (dft[i] < dft[j]))
    fcc = sites == "fcc"
    return {
        "all_sites": agreement(dft, model),
        "fcc_of_metals": agreement(dft[fcc], model[fcc]),
        "site_order_accuracy": right / pairs,
        "best_site_right": best / len(set(metals)),
        "not_converged": sum(not entry.converged for entry in values),
        "values": [asdict(entry) for entry in values],
    }


def print_scores(scores: Scores) -> None:
    """Print one line per comparison."""
    print(f"{'comparison':32} {'n':>4} {'MAE':>6} {'shifted':>7} {'rho':>6} {'R':>6}")
    for part, content in scores.items():
        for name, entry in content.items() if isinstance(content, dict) else ():
            if isinstance(entry, dict) and "MAE_eV" in entry:
                print(
                    f"{part + ' ' + name:32} {entry['n']:4d} {entry['MAE_eV']:6.3f} "
                    f"{entry['MAE_after_shift_eV']:7.3f} {entry['spearman']:6.3f} "
                    f"{entry['pearson']:6.3f}"
                )
            elif isinstance(entry, float):
                print(f"{part + ' ' + name:32} {entry:11.3f}")


def _energies(table: Path) -> dict[tuple[str, str], float]:
    """Return the lowest energy in eV of every site that an adsorbate ended on.

    Bridges are saddle points: two models may let the oxygen slide down either side.
    """
    energies: dict[tuple[str, str], float] = {}
    with table.open() as file:
        for row in csv.DictReader(file):
            if row["status"] == "converged":
                key = row["slab"], row["final_site"]
                energies[key] = min(float(row[ENERGY]), energies.get(key, np.inf))
    return energies


def _report(step: Progress) -> None:
    print(f"{step.done}/{step.total} {step.slab} {step.site} {step.status}", flush=True)


def _score(options: argparse.Namespace) -> None:
    scores: Scores = {"model": options.model}
    parts = set(options.parts.split(","))
    if parts - {"teacher"} and not dft_sets.references().is_dir():
        print(
            f"no folder {dft_sets.references()}: the comparisons with DFT are left out "
            "(CRACK_MD_REFERENCES names the folder above it)"
        )
        parts &= {"teacher"}
    start = time.monotonic()
    if "teacher" in parts:
        table = options.table or relax_surfaces(
            options.surfaces, model=options.model, out=options.out
        )
        scores["teacher"] = score_against_teacher(options.reference, table)
    if parts & {"gpaw", "xu_kitchin"}:
        calculator, info = benchmark_potential(options.model)
    if "gpaw" in parts:
        scores["gpaw"] = score_gpaw(
            calculator,
            known=info.elements,
            limit=options.limit,
            seed=options.seed,
            steps=options.steps,
        )
    if "xu_kitchin" in parts:
        scores["xu_kitchin"] = score_xu_kitchin(
            calculator, known=info.elements, steps=options.steps
        )
    scores["seconds"] = round(time.monotonic() - start, 1)
    print_scores(scores)
    if options.json is not None:
        options.json.write_text(json.dumps(scores, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Run one of the two commands."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    relaxing = commands.add_parser("relax", help="screen slabs with any model")
    relaxing.add_argument("surfaces", type=Path)
    scoring = commands.add_parser("score", help="compare with teacher and DFT")
    surfaces = here.parent / "examples" / "surfaces.db"
    scoring.add_argument("--surfaces", type=Path, default=surfaces)
    reference = here / "reference" / "nequix-oam-1-sites.csv"
    scoring.add_argument("--reference", type=Path, default=reference)
    scoring.add_argument("--parts", default="teacher,gpaw,xu_kitchin")
    scoring.add_argument("--limit", type=int, default=60, help="alloy slabs of GPAW")
    scoring.add_argument("--seed", type=int, default=0)
    scoring.add_argument("--steps", type=int, default=dft_sets.STEPS)
    scoring.add_argument("--json", type=Path)
    for command in (relaxing, scoring):
        command.add_argument("--model", default="default")
        command.add_argument("--out", type=Path, default=Path("runs/screening"))
        command.add_argument("--table", type=Path, help="table of sites")
    options = parser.parse_args(arguments)
    if options.command == "score":
        _score(options)
        return
    table = relax_surfaces(options.surfaces, model=options.model, out=options.out)
    if options.table is not None:
        options.table.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(table, options.table)


if __name__ == "__main__":
    main()
