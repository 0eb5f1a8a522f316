"""An hour of NVE with the packaged student: memory stays flat, energy is kept."""

import csv
import json
import signal
import subprocess
import time
from pathlib import Path

import ase.io
import numpy as np
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms

from tests.soak.records import Record, crack_md, memory_of, one_thread

TEMPERATURE_K = 300
ENDLESS = 10**9
"""Steps that no soak reaches: the run is interrupted when its time is over."""
STEADY_AFTER = 0.1
"""Share of the run after which caches are filled and nothing may grow."""
MOST_GROWTH_MB = 20
MOST_DRIFT = 0.05
"""In meV per atom and ps, as in ``crack-md md --audit``."""


def run(folder: Path, hours: float, *, warm_up: int = 2000) -> Record:
    """Return memory over time and the drift of the energy of one run of NVE."""
    folder.mkdir(parents=True, exist_ok=True)
    start = folder / "slab.extxyz"
    n_atoms = _write_slab(start)
    _call("relax", start, "--out", folder / "relaxed")
    warm = ("--ensemble", "langevin", "--friction", 10, "--steps", warm_up)
    common = ("--temperature", TEMPERATURE_K, "--timestep", 1)
    relaxed = folder / "relaxed" / "relaxed.extxyz"
    _call("md", relaxed, *common, *warm, "--out", folder / "warm")
    nve = folder / "nve"
    rows, seconds = _watch(
        crack_md(
            "md", folder / "warm" / "final.extxyz", *common, "--ensemble", "nve",
            "--steps", ENDLESS, "--out", nve,
        ),
        hours=hours,
        first=nve / "thermo.csv",
    )  # fmt: skip
    return {
        "atoms": n_atoms,
        "hours": round(seconds / 3600, 3),
        **_memory(rows, folder),
        **_energy(nve / "thermo.csv", n_atoms),
    }


def passes(found: Record) -> bool:
    """Return whether nothing grew and the energy was kept."""
    return (
        abs(found["growth_MB"]) <= MOST_GROWTH_MB
        and abs(found["drift_meV_per_atom_ps"]) <= MOST_DRIFT
    )


def _write_slab(path: Path) -> int:
    """Write O on 3 × 3 × 5 Pt(111), its lower two layers fixed."""
    slab = fcc111("Pt", (3, 3, 5), a=3.97, vacuum=8.0, periodic=True)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slab.info = {}
    slab.set_constraint(FixAtoms(slab.positions[:, 2] < slab.positions[18, 2] - 0.1))
    ase.io.write(path, slab)
    return len(slab)


def _call(*arguments: str | Path | float) -> None:
    subprocess.run(
        crack_md(*arguments), check=True, stdout=subprocess.DEVNULL, env=one_thread()
    )


def _watch(
    command: list[str], *, hours: float, first: Path
) -> tuple[list[tuple[float, float]], float]:
    """Run a command for some time; return (seconds, MB) all along, and the time.

    Time begins when the first file of the run is there.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=one_thread())
    rows: list[tuple[float, float]] = []
    begin, wait = time.monotonic(), min(10.0, hours * 3600 / 20)
    while (passed := time.monotonic() - begin) < hours * 3600:
        if process.poll() is not None:
            raise SystemExit(f"md ended by itself with {process.returncode}")
        if first.exists():
            rows.append((passed, memory_of(process.pid)))
        else:
            begin = time.monotonic()
        time.sleep(wait)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=300)
    return rows, passed


def _memory(rows: list[tuple[float, float]], folder: Path) -> Record:
    """Return how memory grew after the start, by the fitted line, and keep the rows."""
    (folder / "memory.json").write_text(json.dumps(rows))
    seconds, megabytes = np.array(rows)[int(STEADY_AFTER * len(rows)) :].T
    slope = np.polyfit(seconds, megabytes, 1)[0]
    return {
        "memory_MB": round(float(megabytes.mean()), 1),
        "largest_MB": round(float(np.max(rows, axis=0)[1]), 1),
        "growth_MB": round(float(slope * (seconds[-1] - seconds[0])), 2),
    }


def _energy(thermo: Path, n_atoms: int) -> Record:
    """Return drift and spread of the total energy, from the table that md wrote."""
    with thermo.open() as file:
        rows = list(csv.DictReader(file))
    time_ps = np.array([float(row["time_fs"]) for row in rows]) / 1000
    energy = np.array([float(row["total_energy_eV"]) for row in rows]) * 1000 / n_atoms
    line = np.polyfit(time_ps, energy, 1)
    spread = (energy - np.polyval(line, time_ps)).std()
    kelvin = np.mean([float(row["temperature_K"]) for row in rows])
    return {
        "steps": int(rows[-1]["step"]),
        "time_ps": round(float(time_ps[-1]), 3),
        "temperature_K": round(float(kelvin), 1),
        "drift_meV_per_atom_ps": float(f"{line[0]:.3g}"),
        "spread_meV_per_atom": float(f"{spread:.3g}"),
    }
