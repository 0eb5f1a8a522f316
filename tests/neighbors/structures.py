"""Structures on which every way to a table of neighbors is tried."""

import ase
import numpy as np
from ase.build import add_adsorbate, bulk, fcc111, graphene, molecule


def slab_with_oxygen(rattle: float = 0.0) -> ase.Atoms:
    slab = fcc111("Pt", (2, 2, 4), a=3.97, vacuum=8.0)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slab.pbc = True
    slab.rattle(rattle, seed=3)
    return slab


def far_molecule_over_slab() -> ase.Atoms:
    slab = slab_with_oxygen()
    slab.cell[2, 2] = 40.0
    return slab + ase.Atoms("H2", [[0, 0, 28.0], [0, 0, 28.7]])


def skewed_copper() -> ase.Atoms:
    atoms = bulk("Cu", cubic=True)
    cell = atoms.cell.array.copy()
    cell[1] += 2 * cell[0]
    cell[2] -= 3 * cell[1]
    atoms.set_cell(cell)
    return atoms


def unwrapped_alloy(cells: int = 3) -> ase.Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.symbols[::3] = "Au"
    jumps = np.random.default_rng(0).integers(-cells, cells + 1, size=(len(atoms), 3))
    atoms.positions += jumps @ atoms.cell.array
    return atoms


STRUCTURES = {
    "slab": slab_with_oxygen(),
    "rattled slab": slab_with_oxygen(rattle=0.05),
    "slab without a third vector": fcc111("Pt", (2, 2, 3), a=3.97),
    "molecule far above a slab": far_molecule_over_slab(),
    "one-atom cell": bulk("Pt", a=3.97),
    "hexagonal bulk": bulk("Co"),
    "skewed cell": skewed_copper(),
    "unwrapped positions": unwrapped_alloy(),
    "positions very far apart": unwrapped_alloy(cells=90_000),
    "sheet": graphene(size=(2, 2, 1)),
    "molecule without cell": molecule("CH3CH2OH"),
    "molecule in a box": molecule("H2O", vacuum=4.0),
    "single atom": ase.Atoms("O"),
    "chain": ase.Atoms("Au", cell=[2.6, 0, 0], pbc=[True, False, False]),
}


def random_structure(generator: np.random.Generator) -> ase.Atoms:
    """Return a few atoms in a skewed cell, periodic along any directions."""
    n_atoms = int(generator.integers(1, 12))
    cell = np.diag(generator.uniform(2.0, 7.0, 3)) + generator.uniform(-1, 1, (3, 3))
    atoms = ase.Atoms(
        numbers=generator.integers(1, 80, n_atoms),
        positions=generator.uniform(-1.5, 2.5, (n_atoms, 3)) @ cell,
        cell=cell,
        pbc=generator.random(3) < 0.6,
    )
    if generator.random() < 0.3:
        atoms.cell[~atoms.pbc] = 0.0
    return atoms
