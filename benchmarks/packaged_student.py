"""Measure a student row by row beside the targets of the packaged one.

    python benchmarks/packaged_student.py --model student.pt \
        --source recipe:configs/labels.yaml --data data/frames.aselmdb \
        --references ../shared --json student.json
    python benchmarks/packaged_student.py --model student.pt --rows speed,short_range \
        --json student.json
    python benchmarks/packaged_student.py --json student.json --card CARD.md

Each row takes minutes on one core and runs alone: rows of the same model and source
that the JSON file has already stay there. What is computed is kept in --out, so that
a stopped row goes on. A row that lacks its data or the source of the labels says so and
is left out. `--card` writes what the model file says, the table of the JSON file and
the limits into a model card, between marks such as `<!-- measured: begin -->`; a card
that is not there is begun, and without --model and --rows nothing is measured.
"""

import argparse
import datetime
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import dft_sets
from benchmarks.results import Record, processor, read_json, write_json
from benchmarks.targets import (
    adsorption,
    bulk,
    dynamics,
    frames,
    lattice_vibrations,
    short_range,
    speed,
)
from benchmarks.targets.card import write_card
from benchmarks.targets.record import Measure, Subjects
from benchmarks.targets.table import printed_lines
from crack_md.errors import CrackError

ROWS: dict[str, tuple[str, Measure]] = {
    "alloys_O": ("random alloys, GPAW-RPBE", adsorption.compare_oxygen_on_alloys),
    "alloys_OH": ("random alloys, GPAW-RPBE", adsorption.compare_hydroxyl_on_alloys),
    "pure_metals": ("fcc(111), GPAW-RPBE", adsorption.compare_pure_metals),
    "platinum_alloys": (
        "order of the literature",
        adsorption.compare_platinum_alloys,
    ),
    "metals_PBE": ("seven (111) metals, PBE", adsorption.compare_metals_with_pbe),
    "labels_O": ("source of the labels", adsorption.compare_unseen_sets),
    "held_out": ("labels of the test split", frames.compare_held_out_frames),
    "bulk": ("source of the labels", bulk.compare_bulk),
    "phonons": ("source of the labels", lattice_vibrations.compare_phonons),
    "nve": ("300 K, 1 fs", dynamics.measure_conservation),
    "short_range": ("from the well to 0.3 Å", short_range.scan_short_range),
    "speed": ("through ASE", speed.measure_speed),
}
"""By name: what the checks are against, and the function that measures."""


def measure(
    subjects: Subjects, rows: list[str], report: Callable[[str], None]
) -> Record:
    """Return the rows that could be measured, ready for JSON, by name."""
    found: Record = {}
    for name in rows:
        against, function = ROWS[name]
        start = time.monotonic()
        try:
            checks, details = function(subjects)
        except (CrackError, FileNotFoundError) as error:
            report(f"{name}: left out: {error}")
            continue
        found[name] = {
            "against": against,
            "checks": [check.as_dict() for check in checks],
            "seconds": round(time.monotonic() - start, 1),
            "command": shlex.join(["python", *sys.argv]),
            "details": details,
        }
        for line in printed_lines(name, found[name]):
            report(line)
    return found


def merged(subjects: Subjects, rows: Record, path: Path | None) -> Record:
    """Return the record with new rows; those of another model or source are dropped."""
    _, info = subjects.student
    before = read_json(path) if path is not None and path.is_file() else {}
    if before.get("model_sha256") != info.sha256:
        before = {}
    source = subjects.source or before.get("source")
    same_source = before.get("source") in (None, source)
    known = {**(before.get("rows", {}) if same_source else {}), **rows}
    return {
        "model": subjects.model,
        "model_sha256": info.sha256,
        "source": source,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "processor": processor(),
        "rows": {name: known[name] for name in ROWS if name in known},
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write JSON and card."""
    options = _parser().parse_args(arguments)
    if options.references is not None:
        os.environ["CRACK_MD_REFERENCES"] = str(options.references.resolve())
    rows = options.rows.split(",") if options.rows else list(ROWS)
    unknown = [name for name in rows if name not in ROWS]
    if unknown:
        sys.exit(f"unknown row '{unknown[0]}'; expected of: {', '.join(ROWS)}")
    if options.card is not None and not (options.model or options.rows):
        if options.json is None:
            sys.exit("--card alone needs --json, the file of the numbers")
        record = read_json(options.json)
    else:
        subjects = _subjects(options)
        found = measure(subjects, rows, lambda line: print(line, flush=True))
        record = merged(subjects, found, options.json)
        if options.json is not None:
            write_json(record, options.json)
    if options.card is not None:
        write_card(options.card, record)


def _subjects(options: argparse.Namespace) -> Subjects:
    return Subjects(
        model=options.model or "default",
        source=options.source,
        out=options.out,
        limit=None if options.limit == "all" else int(options.limit),
        data=options.data,
        other=options.other,
        nve_steps=options.nve_steps,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=f"rows: {', '.join(ROWS)}",
    )
    parser.add_argument("--model", help="student.pt, or a packaged name; else default")
    parser.add_argument("--source", help="teacher or recipe that made the labels")
    parser.add_argument("--data", type=Path, default=Path("data/train_wide.aselmdb"))
    folder = dft_sets.references().parent
    parser.add_argument("--references", type=Path, help=f"default: {folder}")
    parser.add_argument("--rows", help="names separated by commas; else all")
    parser.add_argument("--other", default="default", help="for the ratio of speeds")
    parser.add_argument("--limit", default="60", help="alloy slabs of GPAW, or 'all'")
    parser.add_argument("--nve-steps", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("runs/packaged_student"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--card", type=Path, help="model card to write the table into")
    return parser


if __name__ == "__main__":
    main()
