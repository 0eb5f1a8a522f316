"""Speed of our models and of their peers: the same work, in alternation, in one run.

    python benchmarks/speed.py --json runs/speed/speed.json --write docs/performance.md

Every engine runs in a process of its own, peers in environments of their own (`make
peers`); a missing one is a row that says so. Without options it takes hours on a CPU;
`--quick` is a trial in minutes. `--md` is the protocol that UMA's molecular dynamics
was measured by: NVE in ASE, 200 steps to warm up, the mean of 100. docs/performance.md
says what the columns are.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contest import Contest, run_contest
from benchmarks.contestant import Settings
from benchmarks.engines import COMPILED, Engine, engines
from benchmarks.results import (
    Record,
    available_bytes,
    read_json,
    records,
    write_json,
)
from benchmarks.speed_table import markdown, write_section
from benchmarks.work import WORKS, Case, cases, dynamics
from crack_md.errors import CrackError

DEFAULT_ENGINES = (
    "22M",
    "22M-compiled",
    "22M-bf16",
    "student",
    "student-compiled",
    "student-direct",
    "fairchem-22M",
    "crack-original",
    "nequix",
    "uma-s",
)
OUT = Path("runs/speed/speed.json")
QUICK: dict[str, Any] = {
    "atoms": [46, 81],
    "batch": 4,
    "md_steps": 20,
    "rounds": 3,
    "round_s": 0.5,
}
FULL: dict[str, Any] = {
    "atoms": [46, 81, 1000, 5000],
    "batch": 64,
    "md_steps": 1000,
    "rounds": 5,
    "round_s": 2.0,
}
MD_PROTOCOL: dict[str, Any] = {
    "atoms": [1000],
    "md_steps": 100,
    "rounds": 5,
    "round_s": 2.0,
}


def measure(
    chosen: Sequence[Engine], work: Sequence[Case], settings: Settings, path: Path
) -> Record:
    """Run a contest and return its records, which are also kept in a file."""

    def keep(contest: Contest) -> None:
        write_json(records(contest, settings), path)
        case = contest.rows[-1].case.name
        for row in contest.rows[-len(chosen) :]:
            times = [second for one in row.rounds for second in one]
            best = f"{1e3 * min(times):.1f} ms at best" if times else "no time"
            print(f"{case}: {row.engine}: {row.reason or best}", flush=True)

    shutil.rmtree(settings.logs / COMPILED, ignore_errors=True)
    for engine in chosen:
        if engine.missing:
            print(f"{engine.name} is left out: {engine.missing}", flush=True)
    return records(run_contest(chosen, work, settings, report=keep), settings)


def main(arguments: list[str] | None = None) -> None:
    """Measure, or read what was measured; print the tables and write them."""
    options = parse_options(arguments)
    if options.read:
        content = read_json(options.read)
    else:
        with tempfile.TemporaryDirectory() as folder:
            known = engines(Path(folder))
            unknown = set(options.engines) - set(known)
            if unknown:
                raise SystemExit(
                    f"error: no engine {', '.join(sorted(unknown))}; there are "
                    + ", ".join(known)
                )
            content = measure(
                [known[name] for name in options.engines],
                plan_work(options),
                _settings(options),
                options.json,
            )
        write_json(content, options.json)
    text = markdown(content)
    print(f"\n{text}")
    if options.write:
        try:
            write_section(options.write, text, name=options.section)
        except CrackError as error:
            raise SystemExit(f"error: {error}") from error


def plan_work(options: argparse.Namespace) -> list[Case]:
    """Return what is measured, by options."""
    if options.md:
        return dynamics(options.atoms)
    return cases(
        options.work,
        atoms=options.atoms,
        batch=options.batch,
        md_atoms=options.md_atoms,
    )


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        device=options.device,
        threads=options.threads,
        rounds=options.rounds,
        round_s=options.round_s,
        limit_s=options.limit_s,
        start_limit_s=options.start_limit_s,
        memory_limit=available_bytes() * 7 // 10
        if options.memory_limit_gb is None
        else int(options.memory_limit_gb * 1e9),
        md_steps=options.md_steps,
        md_warm_up=options.md_warm_up,
        logs=options.json.parent / "logs",
    )


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options, those of a protocol filled in."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--engines", nargs="+", default=list(DEFAULT_ENGINES), metavar="NAME")
    add("--work", nargs="+", choices=WORKS, default=list(WORKS))
    add("--atoms", nargs="+", type=int, help="sizes of slabs")
    add("--batch", type=int, help="slabs of the first size in a batch")
    add("--md-atoms", nargs="+", type=int, default=[46])
    add("--md-steps", type=int)
    add("--md-warm-up", type=int)
    add("--md", action="store_true", help="the protocol of UMA's benchmark alone")
    add("--rounds", type=int)
    add("--round-s", type=float, help="seconds for an engine in a round")
    add("--limit-s", type=float, default=600.0, help="for an engine and case")
    add("--start-limit-s", type=float, default=1200.0, help="for a first call")
    add(
        "--memory-limit-gb", type=float, help="for a worker; else 70 %% of what is free"
    )
    add("--device", default="cpu")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--quick", action="store_true", help="small numbers, to try it out")
    add("--json", type=Path, default=OUT, help="file for all that was measured")
    add("--write", type=Path, help="document to put the tables into")
    add("--section", default="speed", help="between which marks of it")
    add("--read", type=Path, help="make the tables of such a file; measure nothing")
    options = parser.parse_args(arguments)
    usual = MD_PROTOCOL if options.md else QUICK if options.quick else FULL
    for name, value in usual.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.md_warm_up is None:
        options.md_warm_up = 200 if options.md else 5
    return options


if __name__ == "__main__":
    main()
