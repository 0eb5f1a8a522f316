"""Let O wander over a platinum skin at 1000 K, and see where it lives.

    python examples/oxygen_diffusion.py --out runs/oxygen_diffusion

Pt(111) p(2x2), three layers with the lowest one fixed, one atom in four of the layer
under the surface is Cu; one O. Langevin dynamics with the packaged student; a run that
was stopped goes on. Prints sites, stays and hops, and writes diffusion.png. One atom
for 20 ps is a look at how it moves, with errors that say how little that is. At 700 K
it stays where it is for that long; 1000 K is above what the student has learned from.
"""

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import fcc111
from ase.constraints import FixAtoms

from crack_md.api.inputs import identity, load_potential
from crack_md.plots.residence import residence_png
from crack_md.workflows.md.residence import (
    Residence,
    diffusion_coefficient,
    surface_path,
    trace_residence,
)
from crack_md.workflows.md.run import run_dynamics
from crack_md.workflows.md.settings import MDSettings
from crack_md.workflows.surfaces.sites import Site, find_sites
from crack_md.workflows.surfaces.slab import prepare_slab

CONSTANT_A = 3.93  # between Pt and Pt3Cu
LAYERS = 3


def alloy() -> Atoms:
    """Return a Pt skin on Pt3Cu: all Pt on top, one Cu of four atoms beneath."""
    slab = fcc111("Pt", (2, 2, LAYERS), a=CONSTANT_A, vacuum=8.0, periodic=True)
    slab.symbols[int(np.flatnonzero(slab.get_tags() == 2)[0])] = "Cu"
    slab.set_constraint(FixAtoms(slab.get_tags() == LAYERS))
    return slab


def simulate(
    slab: Atoms,
    site: Site,
    folder: Path,
    *,
    model: str,
    steps: int,
    temperature_K: float,
) -> None:
    """Run, or go on with, the dynamics of O that starts on a site of the slab."""
    covered = slab.copy()
    covered.extend(Atoms("O", [site.position]))
    settings = MDSettings(
        ensemble="langevin",
        temperature_K=temperature_K,
        timestep_fs=2.0,
        friction_per_ps=2.0,
        steps=steps,
        frames_every=5,
        seed=1,
    )
    calculator, info = load_potential(model)
    result = run_dynamics(
        covered,
        calculator,
        settings=settings,
        folder=folder,
        provenance=identity(info),
        report=lambda p: print(f"{p.done}/{p.total}", end="\r", flush=True),
    )
    print(f"{result.status}: {result.step} steps {result.reason}")


def print_stays(found: Residence) -> None:
    """Print one line per class of sites, and the hops between them."""
    for stay in found.stays:
        mean = "never left" if stay.time_fs else "not visited"
        if stay.mean_residence_fs is not None and stay.residence_error_fs is not None:
            mean = f"{stay.mean_residence_fs:.0f} ± {stay.residence_error_fs:.0f} fs"
        print(f"{stay.name:16} {100 * stay.share:5.1f} %  {mean}")
    for (start, end), count in sorted(found.hop_counts().items()):
        print(f"{start} -> {end}: {count}")


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/oxygen_diffusion"))
    parser.add_argument("--model", default="default")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--temperature", type=float, default=1000.0)
    options = parser.parse_args(arguments)
    prepared = prepare_slab(alloy())
    slab, sites = prepared.atoms, find_sites(prepared)
    start = next(site for site in sites if site.kind == "fcc")
    simulate(
        slab,
        start,
        options.out,
        model=options.model,
        steps=options.steps,
        temperature_K=options.temperature,
    )
    frames = ase.io.read(options.out / "trajectory.extxyz", ":")
    time = float(frames[1].info["time_fs"] - frames[0].info["time_fs"])
    oxygen = len(slab)
    found = trace_residence(
        frames,
        reference=slab,
        sites=sites,
        adsorbate=oxygen,
        time_per_frame_fs=time,
    )
    path = surface_path(frames, adsorbate=oxygen)
    diffusion = diffusion_coefficient([path], time_per_frame_fs=time)
    print_stays(found)
    value, error = diffusion.coefficient_cm2_per_s, diffusion.error_cm2_per_s
    print(f"D = {value:.1e} ± {error:.0e} cm²/s" if found.hops else "no hop")
    title = f"O on a Pt skin over Pt₃Cu(111) at {options.temperature:g} K"
    image = residence_png(slab, path, found, diffusion, title=title)
    (options.out / "diffusion.png").write_bytes(image)


if __name__ == "__main__":
    main()
