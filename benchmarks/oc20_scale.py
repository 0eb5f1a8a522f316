"""What frames of the size of OC20 cost in memory and time, in one run and in eight.

    python benchmarks/oc20_scale.py
    python benchmarks/oc20_scale.py --frames 10000 50000 --ranks 8 --target 460000

Makes sets of synthetic slabs with O* (37 to 126 atoms, 20 neighbors within 12 Å),
trains on each with `data.store` and an EquiformerV2 teacher asked at every step,
stops and goes on. Both models are small: what is measured is what frames and graphs
take, not what weights and activations do. Memory is read from Linux (`smaps_rollup`):
private to a process, and the proportional share of all processes, in which shared pages
count once. A line through two sizes gives the target.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crack_md.data.writer import RowWriter
from crack_md.models.architectures import architecture_from, build_network
from crack_md.models.checkpoint import save_model
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata

METALS = {"Pt": 3.97, "Pd": 3.95, "Au": 4.17, "Ag": 4.16, "Cu": 3.66, "Ni": 3.52}
"""Lattice constants in Å."""
NETWORK: dict[str, Any] = {
    "name": "equiformer_v2",
    "neighbors": "strict",
    "cutoff": 12.0,
    "max_neighbors": 20,
    "num_layers": 1,
    "sphere_channels": 8,
    "attn_hidden_channels": 8,
    "num_heads": 2,
    "attn_alpha_channels": 4,
    "attn_value_channels": 4,
    "ffn_hidden_channels": 8,
    "lmax": 1,
    "mmax": 1,
    "grid_resolution": 6,
    "edge_channels": 8,
    "num_distance_basis": 16,
    "forces": "direct",
}
CHUNK = 500
STEPS = 16


@dataclass(frozen=True)
class Row:
    """What a set of one size took."""

    frames: int
    atoms: int
    first_start_s: float
    """From the command to the first step: store and graphs of two rules are made."""
    resume_s: float
    """From the command to the line that says where it goes on."""
    process_private_gb: float
    """The largest of all processes, at its peak."""
    process_resident_gb: float
    """With the shared pages that it has looked at."""
    machine_gb: float
    """All processes together at their peak, shared pages once."""
    store_gb: float
    """Of the folder."""


def slab(number: int) -> Atoms:
    """Return a rattled slab of two metals with O*, and random labels."""
    random = np.random.default_rng(number)
    first, second = random.choice(list(METALS), size=2, replace=False)
    width, depth, layers = random.integers([3, 3, 4], [6, 6, 6])
    atoms = fcc111(first, (width, depth, layers), a=METALS[first], vacuum=10.0)
    atoms.symbols[random.random(len(atoms)) < 0.3] = second
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.rattle(0.08, seed=number)
    atoms.pbc = True
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() > layers - 2))
    atoms.info = {"group": f"system-{number // 20}", "kind": "relaxed"}
    atoms.info["split"] = "val" if number % 50 == 0 else "train"
    forces = random.normal(scale=0.3, size=(len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, energy=random.normal(), forces=forces)
    return atoms


def write_set(path: Path, n_frames: int) -> int:
    """Write so many slabs; return how many atoms they have."""
    writer = RowWriter(path, job={"n_frames": n_frames})
    n_atoms = 0
    for first in range(0, n_frames, CHUNK):
        rows = [slab(number) for number in range(first, min(first + CHUNK, n_frames))]
        n_atoms += sum(len(atoms) for atoms in rows)
        writer.append(rows, done=first + len(rows))
    writer.finish({"format_version": 1, "energy_reference": "adsorption"})
    return n_atoms


def write_teacher(path: Path) -> None:
    """Write a small EquiformerV2 of random weights."""
    network = build_network(architecture_from(NETWORK))
    metadata = ModelMetadata(
        energy_reference="adsorption", elements=tuple(range(1, 84))
    )
    save_model(ForceField(network, EnergyScale(0.0, 1.0, 1.0), metadata), path)


def recipe(folder: Path, n_ranks: int, steps: int) -> dict[str, Any]:
    """Return the configuration of a run."""
    return {
        "student": {"architecture": NETWORK},
        "teacher": {
            "kind": "online",
            "spec": f"eqv2:{folder / 'teacher.pt'}",
            "labels": "step",
        },
        "data": {
            "path": str(folder / "set.aselmdb"),
            "store": str(folder / "store"),
            "validation_frames": 64,
        },
        "losses": [
            {"kind": "crack", "weight": 1.0, "temperature": 0.15},
            {
                "kind": "task",
                "energy_weight": 1.0,
                "force_weight": 1.0,
                "sigma_eV": 1.0,
            },
        ],
        "optimizer": {"lr": 1e-3, "warmup_steps": 2},
        "run": {
            "folder": str(folder / "run"),
            "batch_size": 2 * n_ranks,
            "devices": n_ranks,
            "max_steps": steps,
            "validate_every": 10**6,
            "accelerator": "cpu",
        },
    }


def descendants(process: int) -> Iterator[int]:
    """Yield the process and all that it has started."""
    yield process
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from descendants(int(child))


def memory_gb(process: int) -> dict[str, float]:
    """Return private, resident and proportional memory of a process."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1e6 for line in lines}
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return {"private": private, "resident": sizes["Rss"], "share": sizes["Pss"]}


class Watch(threading.Thread):
    """Reads the memory of a process and its children until it ends."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.private = self.resident = self.machine = 0.0

    def run(self) -> None:
        """Keep the peaks."""
        while Path(f"/proc/{self._process}").exists():
            found = [memory_gb(one) for one in descendants(self._process)]
            found = [one for one in found if one]
            if found:
                self.private = max(self.private, *(one["private"] for one in found))
                self.resident = max(self.resident, *(one["resident"] for one in found))
                self.machine = max(self.machine, sum(one["share"] for one in found))
            time.sleep(0.5)


def train(folder: Path, n_ranks: int, steps: int, until: str) -> tuple[float, Watch]:
    """Train, and return the seconds to a line of the output, with the memory."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(recipe(folder, n_ranks, steps)))
    command = str(Path(sys.executable).with_name("crack-md"))
    begin, seen_s, lines = time.monotonic(), float("nan"), []
    with subprocess.Popen(
        [command, "train", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        watch = Watch(process.pid)
        watch.start()
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if until in line and np.isnan(seen_s):
                seen_s = time.monotonic() - begin
    watch.join()
    if process.returncode:
        sys.exit("".join(lines[-20:]))
    return seen_s, watch


def measure(folder: Path, n_frames: int, n_ranks: int) -> Row:
    """Make a set, train on it and go on."""
    n_atoms = write_set(folder / "set.aselmdb", n_frames)
    write_teacher(folder / "teacher.pt")
    first_s, first = train(folder, n_ranks, STEPS, "results go to")
    resume_s, second = train(folder, n_ranks, 2 * STEPS, "resuming")
    size = sum(file.stat().st_size for file in (folder / "store").rglob("*.bin"))
    return Row(
        n_frames,
        n_atoms,
        first_s,
        resume_s,
        max(first.private, second.private),
        max(first.resident, second.resident),
        max(first.machine, second.machine),
        size / 1e9,
    )


def extrapolate(rows: list[Row], target: int) -> dict[str, float]:
    """Return what a line through the smallest and the largest set gives."""
    low, high = rows[0], rows[-1]
    found = {}
    for name, value in asdict(high).items():
        if name.endswith("_s"):  # as fast as the machine was free
            continue
        slope = (value - asdict(low)[name]) / (high.frames - low.frames)
        found[name] = value + slope * (target - high.frames)
    return found


def main() -> None:
    """Measure all sizes, print, and write the figures to a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--target", type=int, default=460_000)
    parser.add_argument("--out", type=Path, default=Path("runs/oc20_scale.json"))
    options = parser.parse_args()
    rows = []
    for n_frames in sorted(options.frames):
        with tempfile.TemporaryDirectory(dir=".") as folder:
            rows.append(measure(Path(folder), n_frames, options.ranks))
        print(json.dumps(asdict(rows[-1])), flush=True)
    found = {"ranks": options.ranks, "rows": [asdict(row) for row in rows]}
    if len(rows) > 1:
        found["extrapolated"] = extrapolate(rows, options.target)
        print(json.dumps(found["extrapolated"]))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
