"""Our steps of molecular dynamics beside ASE's loop, with one model on one core.

    python benchmarks/integrators.py [--compiled] [--write docs/performance.md]

NVE of O on Pt(111) at 1 fs with the packaged student. ASE's VelocityVerlet asks the
calculator in every step; `Replicas` keeps state, neighbors and forces in tensors for
ten steps at a time. Both take turns, round after round, from the same start, in CPU
time of one thread; at the end their positions are compared.
"""

import argparse
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cpu_engine import slab
from crack_md import CrackCalculator
from crack_md.calculators import Langevin, Replicas

STEPS = {46: 100, 211: 40, 1001: 10}
"""Of one round, by atoms."""
TEMPERATURE_K = 500.0
BEGIN, END = "<!-- integrators: begin -->", "<!-- integrators: end -->"


def moving(n_atoms: int) -> Atoms:
    """Return a slab with velocities, always the same."""
    atoms = slab(n_atoms)
    spread = np.sqrt(units.kB * TEMPERATURE_K / atoms.get_masses())[:, None]
    random = np.random.default_rng(0)
    atoms.set_velocities(spread * random.standard_normal((n_atoms, 3)))
    return atoms


def row_of(n_atoms: int, rounds: int, *, compiled: bool) -> str:
    """Return a line of the table: milliseconds of a step in both ways."""
    atoms = moving(n_atoms)
    atoms.calc = CrackCalculator(device="cpu", compile=compiled)
    loop = VelocityVerlet(atoms, units.fs)
    replicas = Replicas(
        [moving(n_atoms)],
        CrackCalculator(device="cpu", compile=compiled),
        Langevin(TEMPERATURE_K, friction_per_ps=0.0, timestep_fs=1.0),
        keep_velocities=True,
    )
    ways = {"ASE": loop.run, "ours": replicas.run}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run(10)  # what only the first steps pay
    for _ in range(rounds):
        for name, run in ways.items():
            begin = time.process_time()
            run(STEPS[n_atoms])
            seconds[name].append((time.process_time() - begin) / STEPS[n_atoms])
    ratios = [a / b for a, b in zip(seconds["ASE"], seconds["ours"], strict=True)]
    apart = np.abs(replicas.state.positions - atoms.positions).max()
    kind = "compiled" if compiled else "eager"
    return (
        f"| {n_atoms} | {kind} | {median(seconds['ASE']) * 1000:.2f} | "
        f"{median(seconds['ours']) * 1000:.2f} | {median(ratios):.2f} "
        f"({min(ratios):.2f}–{max(ratios):.2f}) | {apart:.0e} |"
    )


def main() -> None:
    """Print a table, or write it between its marks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="compiled code, too")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds = (False, True) if options.compiled else (False,)
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, one thread, "
        f"torch {torch.__version__}.",
        "",
        "| atoms | model | ASE's loop, ms/step | ours, ms/step | ASE / ours (rounds) | "
        "positions apart, Å |",
        "| ---: | --- | ---: | ---: | --- | ---: |",
    ]
    for n_atoms in STEPS:
        for compiled in kinds:
            lines.append(row_of(n_atoms, options.rounds, compiled=compiled))
            print(lines[-1], flush=True)
    if options.write is not None:
        text = options.write.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        table = "\n".join(lines)
        options.write.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")


if __name__ == "__main__":
    main()
