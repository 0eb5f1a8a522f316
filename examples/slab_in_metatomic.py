"""The packaged student as one file, in ASE without crack-md: O on Pt3Ni(111), 10 fs.

Needs `pip install 'crack-md[metatomic]'`; the file alone needs `metatomic-torch`.
"""

from pathlib import Path

from ase import units
from ase.build import add_adsorbate, fcc111
from ase.md.verlet import VelocityVerlet
from metatomic_ase import MetatomicCalculator

from crack_md.calculators.metatomic import export  # crack-md export

export("default", Path("student-metatomic.pt"))
slab = fcc111("Pt", (2, 2, 3), a=3.89, vacuum=7.0, periodic=True)
slab.numbers[[0, 5, 10]] = 28
add_adsorbate(slab, "O", 1.2, "fcc")
slab.calc = MetatomicCalculator("student-metatomic.pt")
slab.rattle(0.05)
print(f"before: {slab.get_total_energy():.4f} eV")
VelocityVerlet(slab, timestep=units.fs).run(10)
print(f"after:  {slab.get_total_energy():.4f} eV")
