"""What handing over to FIRE saves: O* on every on-top site, with and without it.

    python benchmarks/stalls.py examples/surfaces.db --select "slab=Pd3Ag(111)"
    python benchmarks/stalls.py --pd-au --sites 5

One row for each start: steps and final energy of LBFGS alone, and of LBFGS until it
stalls and FIRE from there.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import fcc111
from ase.calculators.calculator import BaseCalculator

from crack_md.api.inputs import load_potential
from crack_md.structures import StructureEntry, read_entries
from crack_md.workflows.relax.relax import RelaxSettings, relax_atoms
from crack_md.workflows.surfaces.sites import find_sites
from crack_md.workflows.surfaces.slab import prepare_slab

HEIGHTS_A = (1.80, 1.95)


def compare(atoms: Atoms, calculator: BaseCalculator) -> list[tuple[int, float, bool]]:
    """Return steps, energy in eV and convergence without and with the hand-over."""
    runs = []
    for patience in (None, RelaxSettings().stall_steps):
        settings = RelaxSettings(stall_steps=patience)
        done = relax_atoms(atoms, calculator, settings=settings)
        runs.append((done.n_steps, done.energy, done.converged))
    return runs


def random_alloy() -> StructureEntry:
    """Return Pd–Au 3 × 3 × 4, half of each, in random order."""
    slab = fcc111("Pd", (3, 3, 4), a=3.99, vacuum=8.0, periodic=True)
    slab.symbols[np.random.default_rng(1).permutation(36)[:18]] = "Au"
    return StructureEntry("Pd-Au 3x3x4", slab)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slabs", type=Path, nargs="?")
    parser.add_argument("--pd-au", action="store_true", help="a random alloy instead")
    parser.add_argument("--select")
    parser.add_argument("--model", default="default")
    parser.add_argument("--sites", type=int, default=2, help="most on-top sites a slab")
    given = parser.parse_args()
    calculator, model = load_potential(given.model, device="cpu")
    print("slab, site, height / A, steps and eV alone, steps and eV with FIRE")
    entries = [random_alloy()] if given.pd_au else []
    if given.slabs:
        entries += read_entries(given.slabs, select=given.select)
    for entry in entries:
        if entry.atoms is None or model.refusal(entry.atoms.symbols):
            print(f"{entry.name}: left out, the model cannot say anything about it")
            continue
        slab = prepare_slab(entry.atoms)
        ontop = [site for site in find_sites(slab) if site.kind == "ontop"]
        for site in ontop[: given.sites]:
            for height in HEIGHTS_A:
                place = slab.atoms.positions[site.contacts[0]] + [0.0, 0.0, height]
                alone, handed = compare(slab.atoms + Atoms("O", [place]), calculator)
                shown = f"{alone[0]} {alone[1]:.3f}, {handed[0]} {handed[1]:.3f}"
                print(f"{entry.name}, {site.label}, {height}, {shown}", flush=True)


if __name__ == "__main__":
    main()
