"""The packaged student in other engines, beside ASE: `make engines` runs it.

    python benchmarks/other_engines.py [--steps 100] [--repeats 3]

O on Pt3Ni(111), periodic in all directions. Static numbers are compared in float64, and
dynamics (NVE, 1 fs) and cost in float32, as users run it; every engine and ASE take
turns in one process, and the ratio is that of the medians. Engines that are not
installed are named.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
import torch
from ase import units
from ase.build import add_adsorbate, fcc111
from ase.calculators.calculator import Calculator
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet

from crack_md.calculators import CrackCalculator, drivers
from crack_md.calculators.lammps import attach, open_lammps

ELEMENTS = ["Pt", "Ni", "O"]
IPI_INPUT = """
<simulation verbosity="quiet">
  <output prefix="out"/>
  <ffdirect name="crack">
    <pes>custom</pes> <pes_path>{path}</pes_path>
    <parameters>{{template: start.xyz, dtype: {dtype}}}</parameters>
  </ffdirect>
  <system>
    <initialize nbeads="1"><file mode="ase">start.xyz</file></initialize>
    <forces><force forcefield="crack"/></forces>
    <ensemble/>
    <motion mode="dynamics"><fixcom>False</fixcom>
      <dynamics mode="nve"><timestep units="femtosecond">1.0</timestep></dynamics>
    </motion>
  </system>
</simulation>
"""


class State(NamedTuple):
    """What an engine says about its structure."""

    energy: float
    """eV."""
    forces: np.ndarray
    """eV/Å."""
    virial: np.ndarray
    """eV: xx yy zz xy xz yz."""
    total: float
    """Potential and kinetic energy in eV."""


class Engine(NamedTuple):
    """One way to run the student."""

    name: str
    run: Callable[[int], None]
    """Go on by so many steps."""
    state: Callable[[], State]


def slab() -> ase.Atoms:
    """Return O on Pt3Ni(111), moving, in a cell whose matrix is lower triangular."""
    atoms = fcc111("Pt", (2, 2, 4), a=3.89, vacuum=7.0, periodic=True)
    atoms.numbers[[0, 5, 10, 15]] = 28
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.info.clear()  # what extxyz cannot hold
    atoms.rattle(0.03, seed=1)
    spread = np.sqrt(atoms.get_masses() * 500 * units.kB)[:, None]
    atoms.set_momenta(spread * np.random.default_rng(1).normal(size=(len(atoms), 3)))
    Stationary(atoms)
    return atoms


def ase_engine(
    dtype: Any, calculator: Calculator | None = None, name: str = "ASE"
) -> Engine:
    """Return the student, or what is given in its place, under ASE's dynamics."""
    atoms = slab()
    atoms.calc = calculator or CrackCalculator(dtype=dtype)
    dynamics = VelocityVerlet(atoms, timestep=units.fs)

    def state() -> State:
        xx, yy, zz, yz, xz, xy = -atoms.get_stress() * atoms.get_volume()
        return State(
            atoms.get_potential_energy(),
            atoms.get_forces(),
            np.array([xx, yy, zz, xy, xz, yz]),
            atoms.get_total_energy(),
        )

    return Engine(name, lambda steps: dynamics.run(steps), state)


def lammps_engine(dtype: Any) -> Engine:
    """Return the student in LAMMPS."""
    atoms = slab()
    lmp = open_lammps(["-log", "none", "-screen", "none"])
    style = {"units": "metal", "masses": True, "velocities": True}
    ase.io.write("slab", atoms, format="lammps-data", specorder=ELEMENTS, **style)
    lmp.commands_list(["units metal", "atom_modify map array", "read_data slab"])
    attach(lmp, CrackCalculator(dtype=dtype), elements=ELEMENTS)
    lmp.commands_list(
        [
            *("timestep 0.001", "fix motion all nve", "thermo 1000000"),
            "compute virial all pressure NULL virial",
            "thermo_style custom step pe etotal c_virial[1]",
            "run 0",
        ]
    )

    def state() -> State:
        lmp.command("run 0")
        pressure = np.array(lmp.numpy.extract_compute("virial", 0, 1))
        return State(
            lmp.get_thermo("pe"),
            np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3),
            pressure * 1e5 * units.Pascal * atoms.get_volume(),
            lmp.get_thermo("etotal"),
        )

    return Engine("LAMMPS", lambda steps: lmp.command(f"run {steps}"), state)


def ipi_engine(dtype: Any) -> Engine:
    """Return the student in i-PI."""
    from ipi.scripting.interactive import InteractiveSimulation

    atoms = slab()
    ase.io.write("start.xyz", atoms, columns=["symbols", "positions"])
    simulation = InteractiveSimulation(
        IPI_INPUT.format(path=drivers.__file__, dtype=dtype)
    )
    simulation.set_structures(atoms)
    forces = simulation.syslist[0].forces

    def state() -> State:
        virial = np.asarray(forces.vir)
        kinetic = float(simulation.properties("kinetic_md"))
        energy = float(simulation.properties("potential"))
        per_length = units.Hartree / units.Bohr
        return State(
            energy,
            np.reshape(forces.f, (-1, 3)) * per_length,
            virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]] * units.Hartree,
            energy + kinetic,
        )

    return Engine(
        "i-PI", lambda steps: simulation.run(steps, write_outputs=False), state
    )


def metatomic_engine(dtype: Any) -> Engine:
    """Return the student as a file of metatomic, in its ASE calculator."""
    from metatomic_ase import MetatomicCalculator

    from crack_md.calculators.metatomic import export

    file = Path(f"metatomic-{dtype}.pt")
    export("default", file, dtype=dtype)
    return ase_engine(dtype, MetatomicCalculator(file, device="cpu"), "metatomic")


def torchsim_engine(dtype: Any) -> Engine:
    """Return the student in torch-sim."""
    import torch_sim
    from torch_sim.integrators import nve_init, nve_step

    from crack_md.calculators.torchsim import CrackModel

    atoms = slab()
    model = CrackModel(CrackCalculator(dtype=dtype))
    start = torch_sim.initialize_state(atoms, model.device, model.dtype)
    now = nve_init(start, model, kT=0.0)
    now.momenta = torch.from_numpy(atoms.get_momenta())
    step = torch.tensor(units.fs, dtype=torch.float64)

    def run(steps: int) -> None:
        nonlocal now
        for _ in range(steps):
            now = nve_step(now, model, dt=step)

    def state() -> State:
        virial = -model(now)["stress"][0].numpy() * atoms.get_volume()
        kinetic = (now.momenta**2).sum(dim=1) / (2 * now.masses)
        return State(
            now.energy.item(),
            now.forces.numpy(),
            virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]],
            float(now.energy.item() + kinetic.sum()),
        )

    return Engine("torch-sim", run, state)


ENGINES = {
    "lammps": lammps_engine,
    "ipi": ipi_engine,
    "metatomic-torch": metatomic_engine,
    "torch-sim-atomistic": torchsim_engine,
}


def print_static(engines: list[Engine]) -> None:
    """Print energies, and by how much forces and virials differ from ASE's."""
    expected = engines[0].state()
    print(f"{'float64':10} {'energy, eV':>16} {'max ΔF, eV/Å':>14} {'max ΔW, eV':>12}")
    for engine in engines:
        found = engine.state()
        forces = np.abs(found.forces - expected.forces).max()
        virial = np.abs(found.virial - expected.virial).max()
        print(f"{engine.name:10} {found.energy:16.9f} {forces:14.1e} {virial:12.1e}")


def print_dynamics(engines: list[Engine], steps: int, repeats: int) -> None:
    """Print the spread of total energies and the cost of a step, engines in turns."""
    seconds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    totals = {engine.name: [engine.state().total] for engine in engines}
    for engine in engines:
        engine.run(2)  # what only the first steps pay
    for _ in range(repeats):
        for engine in engines:
            begin = time.process_time()
            engine.run(steps)
            seconds[engine.name].append((time.process_time() - begin) / steps)
            totals[engine.name].append(engine.state().total)
    own = statistics.median(seconds["ASE"])
    atoms = len(slab())
    print(
        f"{f'{steps * repeats} fs':10} {'NVE spread, meV/atom':>20} "
        f"{'CPU ms/step':>12} {'of ASE':>7}"
    )
    for name, values in seconds.items():
        drift = np.ptp(totals[name]) * 1000 / atoms
        cost = statistics.median(values)
        print(f"{name:10} {drift:20.3f} {cost * 1000:12.1f} {cost / own:7.2f}")


def main() -> None:
    """Build every engine that is installed, and compare it with ASE."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for package, build in ENGINES.items():
        try:
            print(f"{package} {version(package)}")
            found.append(build)
        except PackageNotFoundError:
            print(f"{package} is not installed: left out")
    builders = [ase_engine, *found]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        print_static([build("float64") for build in builders])
        print_dynamics(
            [build("float32") for build in builders], options.steps, options.repeats
        )


if __name__ == "__main__":
    main()
