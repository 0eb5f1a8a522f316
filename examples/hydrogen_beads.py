"""H on Pt(111) at 150 K with eight beads in i-PI: how far its nucleus spreads.

The packaged student says that it was not made for H on a surface: this shows the way,
not a result. Needs `pip install 'crack-md[ipi]'`; `hydrogen_beads.py 40000` is 10 ps.
"""

import sys

import numpy as np
from ase.build import add_adsorbate, fcc111
from ase.io import write
from ipi.scripting.interactive import InteractiveSimulation

from crack_md.calculators import drivers

INPUT = f"""
<simulation verbosity="quiet">
  <output prefix="hydrogen">
    <properties filename="out" stride="10">
      [ step, time{{picosecond}}, temperature{{kelvin}}, conserved, potential ]
    </properties>
  </output>
  <ffdirect name="crack">
    <pes>custom</pes> <pes_path>{drivers.__file__}</pes_path>
    <batch_size>8</batch_size>
    <parameters>{{template: slab.xyz, model: default}}</parameters>
  </ffdirect>
  <system>
    <initialize nbeads="8">
      <file mode="ase">slab.xyz</file>
      <velocities mode="thermal" units="kelvin">150</velocities>
    </initialize>
    <forces><force forcefield="crack"/></forces>
    <ensemble><temperature units="kelvin">150</temperature></ensemble>
    <motion mode="dynamics">
      <dynamics mode="nvt">
        <timestep units="femtosecond">0.25</timestep>
        <thermostat mode="pile_g"><tau units="femtosecond">50</tau></thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""

slab = fcc111("Pt", (2, 2, 3), a=3.97, vacuum=7.0, periodic=True)
add_adsorbate(slab, "H", 0.9, "fcc")
slab.info.clear()  # what extxyz cannot hold
write("slab.xyz", slab, columns=["symbols", "positions"])
run = InteractiveSimulation(INPUT)
run.run(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
beads = np.array([atoms.positions[-1] for atoms in run.get_structures()])
gyration = np.sqrt(((beads - beads.mean(axis=0)) ** 2).sum(axis=1).mean())
print(f"radius of gyration of H after {run.step} steps: {gyration:.3f} Å")
