"""Adsorption energies of one model on pairs of slabs, kept in a file that grows.

Each pair is appended to a table as soon as it is done, so that a stopped run goes on.
The table holds what the model says and no DFT values: it can be kept and compared.
"""

import csv
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.geometry import find_mic

from benchmarks.dft_sets import FMAX, Key, Pair
from crack_md.workflows.relax.relax import RelaxResult, RelaxSettings, relax_atoms

Report = Callable[[int, int, "Value"], None]


@dataclass(frozen=True)
class Value:
    """What a model says of one pair."""

    model_sha256: str
    max_steps: int
    collection: str
    name: str
    site: str
    dE_eV: float | None
    """E(covered) - E(clean), without gas molecules; None where it failed."""
    status: str
    """``converged``, ``not_converged`` or ``failed``."""
    relaxations: int | None = None
    """2, or 1 where another pair has relaxed the same clean slab; None if unknown."""
    optimizer_steps: int | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    """Of all threads; on a machine that others use it says more than wall time."""
    error: str = ""
    moved_A: float | None = None
    """How far the binding atom went along the surface; 0.8 and it is on another site
    than that of DFT, with an energy of another state."""

    @property
    def key(self) -> Key:
        """Return which pair this is."""
        return self.collection, self.name, self.site


COLUMNS = tuple(field.name for field in fields(Value))


def read_values(path: Path) -> dict[Key, Value]:
    """Return the values of a table; of several for one pair the last."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    return {value.key: value for value in map(_parsed, rows)}


def compute_values(
    pairs: Iterable[Pair],
    calculator: BaseCalculator,
    *,
    path: Path,
    sha256: str,
    max_steps: int,
    report: Report | None = None,
) -> dict[Key, Value]:
    """Return the model's value of every pair, computing those the table lacks.

    Args:
        pairs: where DFT ended; relaxations start there.
        calculator: the model.
        path: the table to read first and to append to.
        sha256: of the model: values of another model are not taken.
        max_steps: most steps of a relaxation; 0 takes the DFT geometries as they are.
        report: called after every pair.
    """
    pairs = list(pairs)
    stored = read_values(path) if path.is_file() else {}
    clean: dict[tuple[str, str], RelaxResult] = {}
    found = {}
    for number, pair in enumerate(pairs, start=1):
        value = stored.get(pair.key)
        if (
            value is None
            or (value.model_sha256, value.max_steps) != (sha256, max_steps)
            or value.status == "failed"
        ):
            told = _evaluate(pair, calculator, clean, max_steps)
            value = Value(sha256, max_steps, *pair.key, **told)
            append_value(path, value)
        found[pair.key] = value
        if report is not None:
            report(number, len(pairs), value)
    return found


def append_value(path: Path, value: Value) -> None:
    """Add a row to a table, which is begun if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.is_file() and path.stat().st_size > 0
    if begun and not path.read_bytes().endswith(b"\n"):
        path.write_bytes(path.read_bytes() + b"\n")  # half a line of a killed run
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not begun:
            writer.writeheader()
        writer.writerow(asdict(value))


def _evaluate(
    pair: Pair,
    calculator: BaseCalculator,
    clean: dict[tuple[str, str], RelaxResult],
    max_steps: int,
) -> dict[str, Any]:
    """Return what is to be said of a pair; a failure is one of a pair, not of all."""

    def settle(atoms: Atoms) -> RelaxResult:
        return relax_atoms(
            atoms, calculator, settings=RelaxSettings(fmax=FMAX, steps=max_steps)
        )

    wall, cpu = time.perf_counter(), time.process_time()
    done = []
    name = pair.collection, pair.clean_name
    try:
        if name not in clean:
            clean[name] = settle(pair.clean)
            done.append(clean[name])
        covered = settle(pair.covered)
        done.append(covered)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return {"dE_eV": None, "status": "failed", "error": text}
    converged = covered.converged and clean[name].converged
    return {
        "dE_eV": round(covered.energy - clean[name].energy, 6),
        "status": "converged" if converged else "not_converged",
        "relaxations": len(done),
        "optimizer_steps": sum(result.n_steps for result in done),
        "moved_A": round(lateral_shift(pair.covered, covered.atoms), 3),
        "wall_s": round(time.perf_counter() - wall, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
    }


def lateral_shift(before: Atoms, after: Atoms) -> float:
    """Return how far the oxygen moved along the surface in Å; 0 without any."""
    oxygen = np.flatnonzero(before.symbols == "O")
    if len(oxygen) == 0:
        return 0.0
    moved, _ = find_mic(after.positions - before.positions, before.cell, before.pbc)
    normal = np.cross(before.cell[0], before.cell[1])
    normal /= np.linalg.norm(normal)
    along = moved[oxygen[0]] - (moved[oxygen[0]] @ normal) * normal
    return float(np.linalg.norm(along))


def _parsed(row: Mapping[str, str]) -> Value:
    def number(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    def count(name: str) -> int | None:
        return int(row[name]) if row[name] else None

    return Value(
        model_sha256=row["model_sha256"],
        max_steps=int(row["max_steps"]),
        collection=row["collection"],
        name=row["name"],
        site=row["site"],
        dE_eV=number("dE_eV"),
        status=row["status"],
        relaxations=count("relaxations"),
        optimizer_steps=count("optimizer_steps"),
        wall_s=number("wall_s"),
        cpu_s=number("cpu_s"),
        error=row["error"],
        moved_A=float(row["moved_A"]) if row.get("moved_A") else None,
    )
