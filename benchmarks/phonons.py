"""Compare the phonons of a student with those of its teacher, on five fcc metals.

    python benchmarks/phonons.py compute --model default --table student.json
    python benchmarks/phonons.py compute --model nequix:WEIGHTS.nqx --table teacher.json
    python benchmarks/phonons.py compare student.json --teacher teacher.json

`compute` relaxes each metal with the model itself, displaces one atom of a 4x4x4
supercell (X and L are of it), and writes bands on one path, and the modes of O* on
Pt(111). It needs the extra 'phonons' beside the model. `compare` prints a table and
draws a figure; the table of the teacher is kept in benchmarks/reference.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from ase.calculators.calculator import BaseCalculator
from ase.constraints import FixAtoms
from matplotlib.figure import Figure

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.models import named_potential
from crack_md.plots.phonons import draw_path
from crack_md.plots.style import BLUE, GRID, INK, png, style
from crack_md.workflows.phonons.crystal import (
    analyse,
    compute_forces,
    displace_supercells,
)
from crack_md.workflows.phonons.modes import local_modes
from crack_md.workflows.phonons.settings import Phonons, PhononSettings, Segment
from crack_md.workflows.relax.relax import (
    RelaxSettings,
    relax_atoms,
    relax_fcc_constant,
)

METALS = ("Pt", "Pd", "Cu", "Ag", "Au")
SUPERCELL = (4, 4, 4)
POINTS_PER_LENGTH = 40
"""Along 1/a of the path, so that two lattice constants have the same points."""
TARGET_THZ = 0.3
REFERENCE = Path(__file__).resolve().parent / "reference" / "nequix-oam-1-phonons.json"
Table = dict[str, Any]


def fcc_phonons(metal: str, calculator: BaseCalculator) -> tuple[float, Phonons]:
    """Return the lattice constant in Å and the phonons of a metal by one model."""
    constant = relax_fcc_constant(metal, calculator)
    settings = PhononSettings(
        supercell=SUPERCELL,
        spacing_per_A=1.0 / (constant * POINTS_PER_LENGTH),
        mesh_length_A=30.0,
    )
    phonon, cells = displace_supercells(
        bulk(metal, "fcc", a=constant), settings=settings
    )
    forces = compute_forces(cells, calculator)
    return constant, analyse(phonon, forces, settings=settings)


def oxygen_on_platinum(constant: float, calculator: BaseCalculator) -> Table:
    """Return the modes of O on the fcc hollow of Pt(111), p(2x2), all Pt fixed."""
    slab: Atoms = fcc111("Pt", (2, 2, 4), a=constant, vacuum=8.0, periodic=True)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slab.set_constraint(FixAtoms(slab.get_tags() > 2))
    settings = RelaxSettings(fmax=2e-3, steps=300)
    relaxed = relax_atoms(slab, calculator, settings=settings).atoms
    modes = local_modes(relaxed, calculator, indices=[len(slab) - 1])
    return {
        "frequency_per_cm": np.round(modes.wavenumber, 2).tolist(),
        "zero_point_energy_eV": round(modes.zero_point_energy, 5),
    }


def compute(
    model: str, metals: tuple[str, ...] = METALS, *, oxygen: bool = True
) -> Table:
    """Return bands of metals, and the modes of O* on Pt, by one model, for JSON."""
    calculator, info = named_potential(model, dtype="float64")
    table: Table = {"model": info.name, "model_sha256": info.sha256, "metals": {}}
    for metal in metals:
        constant, phonons = fcc_phonons(metal, calculator)
        table["metals"][metal] = {
            "lattice_constant_A": round(constant, 5),
            "asymmetry": phonons.asymmetry,
            "n_imaginary": len(phonons.imaginary),
            "zero_point_energy_eV": round(phonons.thermal.zero_point_energy_eV, 6),
            "bands": [_stored(segment) for segment in phonons.segments],
        }
        print(f"{metal}: a {constant:.4f} Å, to {phonons.max_frequency:.3f} THz")
    if oxygen and "Pt" in metals:
        constant = table["metals"]["Pt"]["lattice_constant_A"]
        table["O_on_Pt111"] = oxygen_on_platinum(constant, calculator)
        print(f"O*/Pt(111): {table['O_on_Pt111']['frequency_per_cm']} cm⁻¹")
    return table


def compare(student: Table, teacher: Table) -> dict[str, dict[str, float]]:
    """Return the differences of frequencies over the path, metal by metal, in THz."""
    rows = {}
    for metal in student["metals"]:
        if metal not in teacher["metals"]:
            continue
        bands = [_frequencies(table, metal) for table in (student, teacher)]
        difference = bands[0] - bands[1]
        rows[metal] = {
            "a_student_A": student["metals"][metal]["lattice_constant_A"],
            "a_teacher_A": teacher["metals"][metal]["lattice_constant_A"],
            "max_teacher_THz": float(bands[1].max()),
            "MAD_THz": float(np.abs(difference).mean()),
            "bias_THz": float(difference.mean()),
            "max_difference_THz": float(np.abs(difference).max()),
        }
    return rows


def print_comparison(rows: dict[str, dict[str, float]]) -> None:
    """Print a Markdown table, one line per metal and one for all."""
    print("| metal | a / Å | teacher | max / THz | MAD / THz | bias | largest |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for metal, row in rows.items():
        values = list(row.values())
        cells = [f"{values[0]:.3f}", f"{values[1]:.3f}", f"{values[2]:.2f}"]
        cells += [f"{values[3]:.3f}", f"{values[4]:+.3f}", f"{values[5]:.3f}"]
        print(f"| {metal} | {' | '.join(cells)} |")
    mean = np.mean([row["MAD_THz"] for row in rows.values()])
    print(f"\nmean absolute difference {mean:.3f} THz (target {TARGET_THZ} THz)")


def draw(student: Table, teacher: Table, rows: dict[str, dict[str, float]]) -> Figure:
    """Return bands of both models for every metal, and the differences as bars."""
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    panels = list(figure.subplots(2, 3).flat)
    for axes, (metal, row) in zip(panels, rows.items(), strict=False):
        paths = [_segments(table, metal) for table in (student, teacher)]
        draw_path(axes, paths, ["student", "teacher"], legend=False)
        axes.set_title(f"{metal}, {row['MAD_THz']:.2f} THz apart", loc="left")
        axes.tick_params(labelsize=8.5)
    for axes in panels[::3]:
        axes.set_ylabel("frequency / THz")
    last = panels[-1]
    names = list(rows)[::-1]
    values = [rows[name]["MAD_THz"] for name in names]
    last.barh(names, values, color=BLUE, height=0.6)
    for place, value in enumerate(values):
        last.text(value + 0.006, place, f"{value:.2f}", va="center", fontsize=8.5)
    last.axvline(TARGET_THZ, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    last.text(TARGET_THZ - 0.006, len(names) - 0.42, "target", ha="right", fontsize=8.5)
    last.set(xlim=(0, 1.2 * max(TARGET_THZ, *values)), ylim=(-0.6, len(names) - 0.1))
    last.set_xlabel("mean absolute difference / THz")
    last.grid(axis="x", color=GRID, linewidth=0.7)
    last.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return figure


def _stored(segment: Segment) -> Table:
    return {
        "labels": list(segment.labels),
        "distance_per_A": np.round(segment.distance, 6).tolist(),
        "frequency_THz": np.round(segment.frequency_THz, 4).tolist(),
    }


def _segments(table: Table, metal: str) -> list[Segment]:
    segments = []
    for stored in table["metals"][metal]["bands"]:
        distance = np.array(stored["distance_per_A"])
        frequency = np.array(stored["frequency_THz"])
        labels = (stored["labels"][0], stored["labels"][1])
        segments.append(
            Segment(labels, np.zeros((len(distance), 3)), distance, frequency)
        )
    return segments


def _frequencies(table: Table, metal: str) -> np.ndarray:
    return np.concatenate([s.frequency_THz for s in _segments(table, metal)])


def main(arguments: list[str] | None = None) -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    computing = commands.add_parser("compute", help="phonons by one model")
    computing.add_argument("--model", default="default")
    computing.add_argument("--metals", default=",".join(METALS))
    computing.add_argument("--table", type=Path, required=True)
    comparing = commands.add_parser("compare", help="two tables, and a figure")
    comparing.add_argument("student", type=Path)
    comparing.add_argument("--teacher", type=Path, default=REFERENCE)
    comparing.add_argument("--figure", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "compute":
        table = compute(options.model, tuple(options.metals.split(",")))
        options.table.parent.mkdir(parents=True, exist_ok=True)
        options.table.write_text(json.dumps(table) + "\n")
        return
    student, teacher = (
        json.loads(path.read_text()) for path in (options.student, options.teacher)
    )
    rows = compare(student, teacher)
    print_comparison(rows)
    for name, table in (("student", student), ("teacher", teacher)):
        if "O_on_Pt111" in table:
            print(f"O*/Pt(111), {name}: {table['O_on_Pt111']}")
    if options.figure is not None:
        with style():
            options.figure.write_bytes(png(draw(student, teacher, rows)))


if __name__ == "__main__":
    main()
