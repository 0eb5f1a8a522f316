"""What compiled code brings on one core, beside the model itself and an old commit.

    git worktree add ../before 965fec0
    python benchmarks/cpu_engine.py --before ../before --write docs/performance.md

Every engine is a process of its own; they are called in turn, round after round, with
all atoms moved before each call. Times are CPU time of one thread, from positions in
ASE to energy and forces, so that other work on the machine counts little.

With `--calorine PYTHON`, an interpreter that has calorine, a neuroevolution potential
(NEP, in C++) answers as well: one of the sizes of UNEP-v1 for its 16 metals and O, with
random weights, which cost the same (K. Song et al., Nat. Commun. 15, 10208 (2024)).

    python benchmarks/cpu_engine.py --profile noble-2026-11 --atoms 211

says what the compiled code of a model spends its time on.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.calculator import BaseCalculator

ROOT = Path(__file__).parents[1]
LAYERS = {46: (3, 3, 5), 211: (5, 6, 7), 1001: (10, 10, 10), 2001: (10, 10, 20)}
LAYERS |= {5001: (10, 25, 20)}
"""Atoms of Pt(111) by the number of all atoms, with one O."""
BEGIN, END = "<!-- cpu-engine: begin -->", "<!-- cpu-engine: end -->"
MODELS = ("noble-2026-11", "orr-2026-11b")
BEFORE, EAGER, COMPILED, NEP = "before", "eager", "compiled", "NEP"


def slab(n_atoms: int) -> Atoms:
    """Return O on the fcc site of a rattled Pt(111) slab."""
    atoms = fcc111("Pt", LAYERS[n_atoms], vacuum=10.0, periodic=True)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.rattle(0.05, seed=1)
    return atoms


def calculator_of(model: str, folder: Path, *, compiled: bool) -> BaseCalculator:
    """Return an ASE calculator on one thread; the folder must stay while it works."""
    if model == NEP:
        from calorine.calculators import CPUNEP

        write_nep(folder / "nep.txt")
        return CPUNEP(str(folder / "nep.txt"))
    import torch

    torch.set_num_threads(1)
    from crack_md import CrackCalculator

    file = ROOT / "crack_md" / "resources" / f"{model}.pt"
    return CrackCalculator(str(file), device="cpu", compile=compiled)


def work(model: str, *, compiled: bool) -> None:
    """Answer lines of atoms and calls with CPU seconds of every call, and forces."""
    with tempfile.TemporaryDirectory() as folder:
        _answer(calculator_of(model, Path(folder), compiled=compiled))


def _answer(calculator: BaseCalculator) -> None:
    structures: dict[int, Atoms] = {}
    for line in sys.stdin:
        n_atoms, n_calls = map(int, line.split())
        known = n_atoms in structures
        atoms = structures.setdefault(n_atoms, slab(n_atoms))
        atoms.calc = calculator
        random = np.random.default_rng(0)
        first = atoms.get_forces() if not known else None
        seconds = []
        for _ in range(n_calls):
            atoms.positions += 0.001 * random.normal(size=(n_atoms, 3))
            begin = time.process_time()
            atoms.get_forces()
            seconds.append(time.process_time() - begin)
        answer = {
            "seconds": seconds,
            "forces": None if first is None else first.tolist(),
        }
        print(json.dumps(answer), flush=True)


def write_nep(path: Path) -> None:
    """Write a potential of the sizes of UNEP-v1, and O, with random weights."""
    types = ["Ag", "Al", "Au", "Cr", "Cu", "Mg", "Mo", "Ni", "Pb", "Pd", "Pt", "Ta"]
    types += ["Ti", "V", "W", "Zr", "O"]
    n_types, n_max, n_basis, n_hidden = len(types), 4, 8, 80
    n_inputs = (n_max + 1) * (1 + 6)  # radial; l = 1 to 4, four and five bodies
    n_weights = n_types * (n_inputs + 2) * n_hidden + 1
    n_weights += 2 * n_types**2 * (n_max + 1) * (n_basis + 1)
    numbers = 0.1 * np.random.default_rng(0).normal(size=n_weights)
    lines = [
        f"nep4 {n_types} {' '.join(types)}",
        "cutoff 6 5 120 80",
        f"n_max {n_max} {n_max}",
        f"basis_size {n_basis} {n_basis}",
        "l_max 4 2 1",
        f"ANN {n_hidden} 0",
        *(f"{number:.8e}" for number in [*numbers, *np.ones(n_inputs)]),
    ]
    path.write_text("\n".join(lines) + "\n")


class Contestant:
    """A process that answers for one engine and model."""

    def __init__(
        self, tree: Path, model: str, *, compiled: bool, python: str = sys.executable
    ) -> None:
        options = [model, "--compile"] if compiled else [model]
        self.process = subprocess.Popen(
            [python, __file__, "--worker", *options],
            env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, n_atoms: int, n_calls: int) -> dict[str, Any]:
        """Return the answer of `work`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{n_atoms} {n_calls}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


Times = dict[tuple[str, str, int], list[float]]
"""Median seconds of every round, by model, engine and atoms."""


def measure(
    before: Path, sizes: list[int], rounds: int, calorine: str | None
) -> tuple[Times, list[str]]:
    """Return times, and how far forces of engines are apart."""
    times: Times = {}
    notes = []
    for model in MODELS:
        engines = {
            EAGER: Contestant(ROOT, model, compiled=False),
            COMPILED: Contestant(ROOT, model, compiled=True),
        }
        if model == MODELS[0]:
            engines = {BEFORE: Contestant(before, model, compiled=False), **engines}
        elif calorine is not None:
            nep = Contestant(ROOT, NEP, compiled=False, python=calorine)
            engines[NEP] = nep
        for n_atoms in sizes:
            if n_atoms > 211 and model == MODELS[0]:
                continue
            forces = {}
            for turn in range(rounds + 1):
                for name, engine in engines.items():
                    if n_atoms > 1001 and name == EAGER:
                        continue
                    answer = engine.ask(n_atoms, 5 if n_atoms < 500 else 2)
                    if turn == 0:  # warms up, and tells the forces
                        forces[name] = np.array(answer["forces"])
                        continue
                    seconds = median(answer["seconds"])
                    times.setdefault((model, name, n_atoms), []).append(seconds)
                    print(model, name, n_atoms, f"{1e3 * seconds:.2f} ms", flush=True)
            forces.pop(NEP, None)
            far = [np.abs(one - forces[COMPILED]).max() for one in forces.values()]
            notes.append(f"{model}, {n_atoms} atoms: {max(far):.1e}")
    return times, notes


def table_of(times: Times, notes: list[str]) -> str:
    """Return the table in Markdown."""
    with_nep = any(engine == NEP for _, engine, _ in times)
    rows = [
        "| model | engine | atoms | ms | ms/atom | × before | × eager |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    if with_nep:
        rows = [rows[0] + " × NEP |", rows[1] + " ---: |"]
    for (model, name, n_atoms), found in times.items():
        ratios = []
        for other in (BEFORE, EAGER, *([NEP] if with_nep else [])):
            reference = times.get((model, other, n_atoms))
            pairs = zip(reference or [], found, strict=bool(reference))
            quotients = sorted(one / two for one, two in pairs)
            ratios.append(
                f"{median(quotients):.2f} ({quotients[0]:.2f}–{quotients[-1]:.2f})"
                if quotients and other != name and name != NEP
                else ""
            )
        milliseconds = 1e3 * median(found)
        rows.append(
            f"| {model} | {name} | {n_atoms} | {milliseconds:.2f} | "
            f"{milliseconds / n_atoms:.4f} | {' | '.join(ratios)} |"
        )
    ends = "Largest difference of forces of the engines, eV/Å: " + "; ".join(notes)
    return "\n".join([*rows, "", ends + "."])


KINDS = {
    "dense products": ("mm_out", "addmm_out"),
    "batched products": ("bmm_out",),
    "sums over edges": ("index_add",),
    "other loops": ("_cpp_fused_",),
}
"""Parts of the names of what a profile finds, the first that fits counts."""


def profile(model: str, n_atoms: int, n_calls: int = 10) -> str:
    """Return what compiled code spends its time on, a line for each kind of work."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    from crack_md.calculators.packaged import package_of
    from crack_md.calculators.packages import inputs_of
    from crack_md.models.checkpoint import load_model
    from crack_md.neighbors import build_graph

    torch.set_num_threads(1)
    loaded = load_model(model)
    graph = build_graph(slab(n_atoms), loaded.rule, dtype=loaded.dtype)
    inputs = inputs_of(loaded.network.edges(graph, compact=True))
    settings = {"cpp.enable_kernel_profile": True}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # not among the packages of the user
        with torch._inductor.config.patch(settings):
            package = package_of(loaded)
        for _ in range(3):
            package(list(inputs))
        with profiler(activities=[ProfilerActivity.CPU]) as found:
            for _ in range(n_calls):
                package(list(inputs))
    shares = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for one in found.key_averages():
        kinds = (kind for kind, parts in KINDS.items() if _is_of(one.key, parts))
        milliseconds = one.self_cpu_time_total / n_calls / 1e3
        shares[next(kinds, "the rest")] += milliseconds
    lines = [f"{kind}: {milliseconds:.1f} ms" for kind, milliseconds in shares.items()]
    return "\n".join([*lines, f"all: {sum(shares.values()):.1f} ms"])


def _is_of(name: str, parts: tuple[str, ...]) -> bool:
    return any(part in name and f"b{part}" not in name for part in parts)


def main() -> None:
    """Measure, print the table and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="Tree of the commit before.")
    parser.add_argument("--atoms", type=int, nargs="+", default=list(LAYERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="Document that has the markers.")
    parser.add_argument("--calorine", metavar="PYTHON", help="It times NEP, too.")
    parser.add_argument("--profile", metavar="MODEL", help="What its time goes to.")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, compiled=options.compile)
        return
    if options.profile:
        for n_atoms in options.atoms:
            print(f"{options.profile}, {n_atoms} atoms")
            print(profile(options.profile, n_atoms))
        return
    if options.before is None:
        parser.error("name the tree of the commit before with --before")
    times, notes = measure(
        options.before.resolve(), options.atoms, options.rounds, options.calorine
    )
    table = table_of(times, notes)
    print(table)
    if options.write is not None:
        text = options.write.read_text()
        head, rest = text.split(BEGIN)
        machine = f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, one thread."
        _, tail = rest.split(END)
        options.write.write_text(
            f"{head}{BEGIN}\n\n{machine}\n\n{table}\n\n{END}{tail}"
        )


if __name__ == "__main__":
    main()
