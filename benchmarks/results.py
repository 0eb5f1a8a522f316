"""What a contest found, as plain records: for JSON, and for the tables made of it."""

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.contest import Contest, Row
from benchmarks.contestant import Contestant, Settings
from benchmarks.engines import REFERENCE
from crack_md.bench.timing import ns_per_day, summary

Record = dict[str, Any]


def records(contest: Contest, settings: Settings) -> Record:
    """Return all results, the machine and the command."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "machine": machine(settings),
        "settings": {**asdict(settings), "logs": str(settings.logs)},
        "rates": contest.rates,
        "engines": {c.engine.name: _engine(c) for c in contest.contestants},
        "agreement": agreement(contest.contestants),
        "rows": _rows(contest),
    }


def write_json(content: Record, path: Path) -> None:
    """Write a file that is complete or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    temporary.replace(path)


def read_json(path: Path) -> Record:
    """Return what `write_json` wrote."""
    return json.loads(path.read_text())


def machine(settings: Settings) -> Record:
    """Return what the times depend on beside the code."""
    found = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": settings.threads,
        "load_at_start": round(os.getloadavg()[0], 2),
        "memory_GB": round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1
        ),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if settings.device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name()
        found["driver"] = _driver()
    return found


def agreement(contestants: Sequence[Contestant]) -> list[Record]:
    """Return how far engines with the same weights are apart on the first structure."""
    first: dict[str, Contestant] = {}
    found = []
    for one in contestants:
        function = one.engine.function
        if not function or not one.prediction:
            continue
        other = first.setdefault(function, one)
        if other is one:
            continue
        energy, forces = _first(one)
        known_energy, known_forces = _first(other)
        largest = float(np.abs(known_forces).max())
        found.append(
            {
                "engine": one.engine.name,
                "reference": other.engine.name,
                "energy_meV_per_atom": 1000
                * abs(energy - known_energy)
                / len(known_forces),
                "force_eV_per_A": float(np.abs(forces - known_forces).max()),
                "largest_force_eV_per_A": largest,
            }
        )
    return found


def ratio_to(row: Row, reference: Row) -> Record | None:
    """Return how many times longer a row took than another, round by round."""
    pairs = zip(row.rounds, reference.rounds, strict=False)
    ratios = [median(one) / median(other) for one, other in pairs]
    if not ratios:
        return None
    return {"median": median(ratios), "low": min(ratios), "high": max(ratios)}


def _rows(contest: Contest) -> list[Record]:
    reference = {
        id(row.case): row
        for row in contest.rows
        if row.engine == REFERENCE and not row.reason
    }
    dtypes = {c.engine.name: c.engine.dtype for c in contest.contestants}
    found = []
    for row in contest.rows:
        other = reference.get(id(row.case))
        record = _row(row, contest.rates.get(dtypes[row.engine]))
        record["ratio"] = ratio_to(row, other) if other and not row.reason else None
        found.append(record)
    return found


def _row(row: Row, rates: Record | None) -> Record:
    case = row.case
    record: Record = {
        "engine": row.engine,
        "case": case.name,
        "system": case.system,
        "work": case.work,
        "n_atoms": case.n_atoms,
        "n_structures": len(case.structures),
        "not_run": row.reason or None,
        "first_s": row.first_s,
    }
    calls = [seconds for one in row.rounds for seconds in one]
    if row.reason or not calls:
        return record | {"not_run": row.reason or "no call was made"}
    times = summary(calls)
    # a step of molecular dynamics: the mean, as benchmarks of others have it
    seconds = times.mean_s if case.work == "md" else times.median_s
    record |= asdict(times) | {
        "rounds_s": row.rounds,
        "atom_steps_per_s": case.n_atoms / seconds,
        "ns_per_day": ns_per_day(seconds) if len(case.structures) == 1 else None,
        "peak_MB": row.peak_bytes / 1e6,
    }
    if row.flops is not None and row.bytes is not None and rates:
        record |= {
            "GFLOP": row.flops / 1e9,
            "GB": row.bytes / 1e9,
            "of_gemm_rate": row.flops / seconds / rates["flops_per_s"],
            "of_bandwidth": row.bytes / seconds / rates["bytes_per_s"],
        }
    return record


def _engine(contestant: Contestant) -> Record:
    return {
        "title": contestant.engine.title,
        "not_run": contestant.reason or None,
        "cold_start": contestant.cold_start,
        **contestant.about,
    }


def _first(contestant: Contestant) -> tuple[float, np.ndarray]:
    prediction = contestant.prediction
    return prediction["energies"][0], np.array(prediction["forces"][0])


def available_bytes() -> int:
    """Return how much memory a new process can have without swapping."""
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def processor() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return (answer.stdout.splitlines() or ["unknown"])[0]
