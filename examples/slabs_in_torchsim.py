"""O on four (111) surfaces, relaxed in one batch on one device by torch-sim.

Needs `pip install 'crack-md[torchsim]'` and Python 3.12 or newer.
"""

import torch_sim
from ase.build import add_adsorbate, fcc111

from crack_md.calculators.torchsim import CrackModel

slabs = []
for metal, lattice in (("Pt", 3.97), ("Pd", 3.95), ("Ag", 4.15), ("Cu", 3.64)):
    slab = fcc111(metal, (2, 2, 3), a=lattice, vacuum=7.0, periodic=True)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slabs.append(slab)
state = torch_sim.optimize(
    slabs,
    CrackModel("default"),
    optimizer=torch_sim.Optimizer.fire,
    convergence_fn=torch_sim.generate_force_convergence_fn(0.03),
    max_steps=500,
)
for slab, energy in zip(slabs, state.energy, strict=True):
    print(f"{slab.get_chemical_formula()}: {energy:.4f} eV")
