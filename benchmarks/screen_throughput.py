"""What a large screening costs: relaxations per second here, and hours from them.

    python benchmarks/screen_throughput.py --batch 1 8 --relaxations 24

O* on sites of the example surfaces is relaxed by the packaged student on one thread of
this CPU, in every size of batch and precision asked for. The lines below say what
580,000 such relaxations take on so many workers:

    hours = relaxations * steps * atoms * s_per_atom_and_step / workers / 3600
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from crack_md.calculators import CrackCalculator
from crack_md.structures import read_entries
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.relax.store import RelaxationRecord
from crack_md.workflows.screening.plan import ScreenSettings, plan_slab
from crack_md.workflows.screening.relaxations import (
    SiteRelaxation,
    batched_runner,
    bind_settings,
)
from crack_md.workflows.surfaces.adsorbates import ADSORBATES, place
from crack_md.workflows.surfaces.outcome import neighbor_distance

RELAXATIONS = 580_000
"""Of the largest screening of O* on alloys that was published."""
WORKERS = (1, 8, 64)
EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "surfaces.db"


Records = Mapping[str, RelaxationRecord]


class Measured(NamedTuple):
    """One way to relax all of the sample."""

    dtype: str
    batch: int
    relaxations_per_s: float
    steps_per_relaxation: float
    atoms_per_structure: float
    s_per_atom_and_step: float
    largest_difference_eV: float
    """From the energies of the first size of batch in this precision."""
    n_other_digits: int
    """Energies that are printed differently, with four digits."""
    n_other_steps: int


def sample(
    surfaces: Path, count: int, settings: ScreenSettings
) -> list[SiteRelaxation]:
    """Return relaxations of O* on so many sites, taken evenly from all of them."""
    model = ModelInfo("", "", "adsorption")
    tasks = list(_tasks(surfaces, model, settings))
    return [tasks[len(tasks) * number // count] for number in range(count)]


def _tasks(
    surfaces: Path, model: ModelInfo, settings: ScreenSettings
) -> Iterator[SiteRelaxation]:
    for entry in read_entries(surfaces):
        plan = plan_slab(entry, model=model, settings=settings)
        if plan.slab is None:
            continue
        clean = plan.slab.atoms
        for start in plan.starts:
            initial = place(plan.slab, start, relaxed=clean)
            yield SiteRelaxation(
                f"{plan.name} {start.key}", plan, start, initial, clean
            )


def relax_all(
    tasks: Sequence[SiteRelaxation], settings: ScreenSettings, *, dtype: Any, batch: int
) -> tuple[Records, float]:
    """Return what became of every relaxation, and the seconds of a core they took."""
    calculator = CrackCalculator(device="cpu", dtype=dtype)
    function = bind_settings(
        settings,
        direct_forces=calculator.forces_kind == "direct",
        distance=neighbor_distance,
    )
    runner = batched_runner(calculator, width=batch)
    list(runner(function, tasks[:1]))  # the first call is slower
    begin = time.process_time()  # of all threads: other programs cost nothing
    records = {o.record.key: o.record for o in runner(function, tasks)}
    return records, time.process_time() - begin


def measure(
    tasks: Sequence[SiteRelaxation],
    settings: ScreenSettings,
    *,
    dtype: Any,
    batches: list[int],
) -> Iterator[Measured]:
    """Yield how fast relaxations are, so many at a time, and how they differ."""
    sizes = {task.key: len(task.initial) for task in tasks}
    first: Records | None = None
    for batch in batches:
        records, seconds = relax_all(tasks, settings, dtype=dtype, batch=batch)
        first = first or records
        steps = {key: (record.n_steps or 0) + 1 for key, record in records.items()}
        work = sum(count * sizes[key] for key, count in steps.items())
        pairs = [(first[key], record) for key, record in records.items()]
        energies = [(one.energy or 0.0, other.energy or 0.0) for one, other in pairs]
        yield Measured(
            dtype,
            batch,
            len(tasks) / seconds,
            sum(steps.values()) / len(tasks),
            work / sum(steps.values()),
            seconds / work,
            max(abs(one - other) for one, other in energies),
            sum(round(one, 4) != round(other, 4) for one, other in energies),
            sum(one.n_steps != other.n_steps for one, other in pairs),
        )


def hours(measured: Measured, workers: int) -> float:
    """Return what the large screening takes on so many workers of this kind."""
    steps = RELAXATIONS * measured.steps_per_relaxation
    each = measured.atoms_per_structure * measured.s_per_atom_and_step
    return steps * each / workers / 3600


def _line(one: Measured) -> str:
    return (
        f"{one.dtype}, batch {one.batch}: {one.relaxations_per_s:.3f} relaxations/s "
        f"per core, {one.steps_per_relaxation:.0f} steps of "
        f"{one.atoms_per_structure:.0f} atoms, "
        f"{1e3 * one.s_per_atom_and_step:.2f} ms per atom and step; energies "
        f"differ by {one.largest_difference_eV:.1e} eV, {one.n_other_digits} in the "
        f"fourth digit, {one.n_other_steps} took other steps"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, and write the numbers to a file where one is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--surfaces", type=Path, default=EXAMPLES)
    parser.add_argument("--relaxations", type=int, default=24)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = ScreenSettings(adsorbates=(ADSORBATES["O"],))
    tasks = sample(options.surfaces, options.relaxations, settings)
    found = [
        one
        for dtype in options.dtype
        for one in measure(tasks, settings, dtype=dtype, batches=options.batch)
    ]
    print(f"{len(tasks)} relaxations of {options.surfaces}, {platform.processor()}")
    for one in found:
        print(_line(one))
        for workers in WORKERS:
            took = hours(one, workers)
            print(f"  {RELAXATIONS:,} on {workers} cores: {took:,.0f} h")
    if options.json:
        content = [one._asdict() for one in found]
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
