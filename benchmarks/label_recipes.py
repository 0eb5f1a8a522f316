"""How well weighted increments of several teachers give O* and OH* of DFT.

An increment of a teacher is E(slab with adsorbate) − E(the same atoms without it). A
label is E_base(metal atoms) + Σ w_t (increment_t + offset_t), the offsets such that all
teachers agree on Pt(111). Energies are taken at the geometries of DFT, relative to
Pt(111), on two openly licensed sets: GPAW-RPBE on Ag-Ir-Pd-Pt-Ru alloys
(`gpaw_hea_relaxations`) and PBE on seven (111) metals (`xu_kitchin_111`).

    python benchmarks/label_recipes.py --base nequix:nequix-oam-1.nqx \
        --teacher nequix:nequix-oam-1.nqx --teacher tensornet:TensorNet-... \
        --teacher tensornet:TensorNetDGL-... --increments increments.json

Increments are kept in a file: with it the table takes no time, for any weights.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.db import connect
from ase.io import read

from benchmarks.dft_sets import references, xu_kitchin_pairs
from crack_md.models.teachers import Teacher, load_teacher

HEA, XU_KITCHIN = "gpaw_hea", "xu_kitchin"
STEP = 0.25
"""Weights are tried in multiples of this; they add up to 1."""


@dataclass(frozen=True)
class Adsorption:
    """One adsorbed structure: what DFT and every teacher say of it, in eV."""

    collection: str
    adsorbate: str
    name: str
    dft: float
    """E(covered) − E(clean), both relaxed by DFT."""
    metal: float
    """By the base teacher: E(covered, adsorbate removed) − E(clean, relaxed)."""
    increments: dict[str, float]


def structures() -> Iterator[tuple[str, str, str, Atoms, Atoms, float]]:
    """Yield (set, adsorbate, name, covered, clean, E_DFT); Pt(111) comes first."""
    folder = references() / "gpaw_hea_relaxations" / "traj_history"
    clean = next(connect(folder / "3x3x5_pt111_slab.db").select())
    for adsorbate, site in (("O", "fcc"), ("OH", "ontop")):
        path = folder / f"3x3x5_pt111_{site}_{adsorbate}.db"
        row = next(connect(path).select())
        atoms = row.toatoms()
        energy = row.energy - clean.energy
        yield HEA, adsorbate, "Pt(111)", atoms, clean.toatoms(), energy
    for path in sorted(folder.glob("*.traj")):
        if path.stem.endswith("slab"):
            continue
        system = re.split("_(fcc|ontop|ads)", path.stem)[0]
        slab = read(folder / f"{system}_slab.traj")
        covered = read(path)
        adsorbate = "".join(s for s in ("O", "H") if s in covered.symbols)
        if adsorbate in ("O", "OH"):
            energy = covered.get_potential_energy() - slab.get_potential_energy()
            yield HEA, adsorbate, path.stem, covered, slab, energy
    pairs = sorted(xu_kitchin_pairs(), key=lambda pair: pair.name != "Pt")
    pairs.sort(key=lambda pair: (pair.name != "Pt", pair.site != "fcc"))
    for pair in pairs:
        name = "Pt(111)" if (pair.name, pair.site) == ("Pt", "fcc") else pair.name
        label = name if name == "Pt(111)" else f"{pair.name} {pair.site}"
        yield XU_KITCHIN, "O", label, pair.covered, pair.clean, pair.dft


def evaluate(base: Teacher, teachers: Sequence[Teacher]) -> list[Adsorption]:
    """Return the increments of all teachers for all structures."""
    found = []
    for collection, adsorbate, name, covered, clean, dft in structures():
        metal = covered[[symbol not in ("O", "H") for symbol in covered.symbols]]
        bare, rest = (labels.energy for labels in base.predict([metal, clean]))
        increments = {}
        for teacher in teachers:
            full, empty = (one.energy for one in teacher.predict([covered, metal]))
            increments[teacher.name] = full - empty
        found.append(
            Adsorption(collection, adsorbate, name, dft, bare - rest, increments)
        )
        print(f"{len(found)} {collection} {name}", flush=True)
    return found


def errors(
    rows: Sequence[Adsorption], weights: dict[str, float]
) -> tuple[float, float, float, int]:
    """Return MAE in eV, R, MAE after one shift, and how many; against Pt(111)."""
    model = np.array(
        [r.metal + sum(w * r.increments[t] for t, w in weights.items()) for r in rows]
    )
    dft = np.array([row.dft for row in rows])
    model, dft = (model - model[0])[1:], (dft - dft[0])[1:]
    difference = model - dft
    shifted = difference - difference.mean()
    correlation = float(np.corrcoef(model, dft)[0, 1])
    return (
        float(np.abs(difference).mean()),
        correlation,
        float(np.abs(shifted).mean()),
        len(dft),
    )


def choices(names: Sequence[str]) -> Iterator[dict[str, float]]:
    """Yield all weights in multiples of `STEP` that add up to 1."""
    count = round(1 / STEP)
    for parts in product(range(count + 1), repeat=len(names)):
        if sum(parts) == count:
            yield {n: k * STEP for n, k in zip(names, parts, strict=True)}


def table(rows: Sequence[Adsorption]) -> str:
    """Return a Markdown table: weights in rows, sets and adsorbates in columns."""
    groups: dict[tuple[str, str], list[Adsorption]] = {}
    for row in rows:
        groups.setdefault((row.collection, row.adsorbate), []).append(row)
    names = list(rows[0].increments)
    heads = [
        f"{adsorbate}* {collection} (n {len(group) - 1})"
        for (collection, adsorbate), group in groups.items()
    ]
    lines = [
        "| " + " | ".join([*names, *heads]) + " |",
        "|" + "---|" * (len(names) + len(heads)),
    ]
    for weights in choices(names):
        cells = [f"{weights[name]:.2f}" for name in names]
        for group in groups.values():
            mae, correlation, shifted, _ = errors(group, weights)
            cells.append(f"{mae:.3f} / {correlation:.3f} / {shifted:.3f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Compute what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base", help="teacher of the metal atoms")
    parser.add_argument("--teacher", action="append", default=[])
    parser.add_argument("--increments", type=Path, required=True)
    options = parser.parse_args()
    if options.increments.exists():
        stored = json.loads(options.increments.read_text())
        rows = [Adsorption(**row) for row in stored]
    else:
        teachers = {spec: load_teacher(spec) for spec in options.teacher}
        base = teachers.get(options.base) or load_teacher(options.base)
        rows = evaluate(base, list(teachers.values()))
        options.increments.write_text(json.dumps([asdict(row) for row in rows]))
    print("MAE in eV / R / MAE after one shift, relative to Pt(111)\n")
    print(table(rows))


if __name__ == "__main__":
    main()
