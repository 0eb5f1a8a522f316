"""Kill a screening of many slabs at random moments; its table must not change.

    python benchmarks/screen_kills.py --slabs 200 --kills 3 -- --workers 2

One screening with EMT runs undisturbed. Another, in a folder of its own, is killed with
SIGKILL after a random share of its relaxations, as often as asked for, and each time
started again. Then both tables are compared byte by byte.
"""

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import ase.io
from ase.build import fcc111

METALS = {"Cu": 3.6, "Ag": 4.1, "Au": 4.1, "Pt": 3.9, "Pd": 3.9, "Ni": 3.5}
TABLES = ("results.csv", "sites.csv")
RUN = "from crack_md.cli import main; main()"


def write_slabs(path: Path, count: int, *, strain: float = 2e-4) -> Path:
    """Write slabs of all metals with names, each round strained by so much more."""
    frames = []
    for number in range(count):
        metal = list(METALS)[number % len(METALS)]
        a = METALS[metal] * (1 + strain * (number // len(METALS)))
        atoms = fcc111(metal, (1, 1, 3), a=a, vacuum=8.0, periodic=True)
        atoms.info = {"name": f"{metal}-{number}"}
        frames.append(atoms)
    ase.io.write(path, frames)
    return path


def screen_command(slabs: Path, out: Path, more: Sequence[str]) -> list[str]:
    """Return the command of a screening with EMT."""
    options = ["--model", "emt", "--gas-reference", "H2O=2.2,H2=2.5", "--fmax", "0.1"]
    arguments = ["screen", str(slabs), *options, *more, "--out", str(out)]
    return [sys.executable, "-c", RUN, *arguments]


def count_rows(folder: Path) -> int:
    """Return how many relaxations are stored."""
    path = folder / "results.db"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return int(connection.execute("select count(*) from systems").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def run_killed(command: list[str], out: Path, n_rows: int) -> int:
    """Run until so many relaxations are stored, kill, and return how many there are."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while count_rows(out) < n_rows and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit(f"the screening ended by itself with {process.returncode}")
    return count_rows(out)


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what was killed when, and whether the tables are equal."""
    slabs, calm, out = folder / "slabs.extxyz", folder / "calm", folder / "killed"
    write_slabs(slabs, options.slabs)
    begin = time.perf_counter()
    subprocess.run(
        screen_command(slabs, calm, []), check=True, stdout=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - begin
    total = count_rows(calm)
    command = screen_command(slabs, out, options.more)
    draw = random.Random(options.seed)
    moments = sorted(draw.sample(range(1, total), options.kills))
    rows = [run_killed(command, out, moment) for moment in moments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    equal = {
        name: (calm / name).read_bytes() == (out / name).read_bytes() for name in TABLES
    }
    counts = json.loads((out / "summary.json").read_text())["counts"]
    return {
        "slabs": options.slabs,
        "relaxations": total,
        "rows_at_kills": rows,
        "rows_at_end": count_rows(out),
        "relaxations_of_last_run": counts["relaxations_done"],
        "tables_equal": equal,
        "seconds_undisturbed": round(seconds, 1),
        "options": options.more,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was found; exit code 1 where a table differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--slabs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "more", nargs="*", help="further options of the screening, after --"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = compare(options, Path(folder))
    print(json.dumps(found, indent=2))
    return 0 if all(found["tables_equal"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
