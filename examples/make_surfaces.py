"""Make examples/surfaces.db: fourteen fcc(111) slabs that the demo screens.

Ordered p(2x2) slabs of four layers: seven pure metals, four with a foreign layer under
or as a platinum skin, and three L1_2 alloys, one of them with a skin. Lattice constants
are PBE's for the elements and Vegard's between them. All slabs keep so much symmetry
that they have four or nine distinct sites: 85 relaxations in all.

No Ni or Co, although Pt-Ni and Pt-Co are the famous catalysts: the packaged student's
teacher learned from data that switch on a Hubbard U for these metals where oxygen is
present, which shifts their O* energies by electronvolts.

    python examples/make_surfaces.py examples/surfaces.db
"""

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import fcc111, surface
from ase.db import connect
from ase.spacegroup import crystal

PBE_CONSTANT_A = {
    "Ag": 4.15,
    "Au": 4.16,
    "Cu": 3.63,
    "Ir": 3.87,
    "Pd": 3.94,
    "Pt": 3.97,
    "Rh": 3.83,
}
PURE = ("Pt", "Pd", "Ag", "Au", "Cu", "Ir", "Rh")
LAYERED = {
    # from the surface down; the last element sets the lattice constant
    "Pt/Cu/Pt(111)": ("Pt", "Cu", "Pt", "Pt"),
    "Pt/Ru/Pt(111)": ("Pt", "Ru", "Pt", "Pt"),
    "Pt/Pd(111)": ("Pt", "Pd", "Pd", "Pd"),
    "Pt/Ir(111)": ("Pt", "Ir", "Ir", "Ir"),
}
ORDERED = {
    "Pt3Cu(111)": ("Pt", "Cu", False),
    "Pt3Cu(111) Pt skin": ("Pt", "Cu", True),
    "Pd3Ag(111)": ("Pd", "Ag", False),
}
VACUUM_A = 7.5


def layered(elements: tuple[str, ...]) -> Atoms:
    """Return a p(2x2) slab with one element per layer, given from the top down."""
    constant = PBE_CONSTANT_A[elements[-1]]
    slab = fcc111(elements[-1], (2, 2, len(elements)), a=constant, vacuum=VACUUM_A)
    # ase.build numbers layers from the top, starting with 1.
    slab.symbols = [elements[tag - 1] for tag in slab.get_tags()]
    return slab


def ordered(majority: str, minority: str, *, skin: bool) -> Atoms:
    """Return four L1_2 (111) layers of A3B; a skin has no B in the top layer."""
    constant = 0.75 * PBE_CONSTANT_A[majority] + 0.25 * PBE_CONSTANT_A[minority]
    bulk = crystal(
        (minority, majority),
        basis=[(0, 0, 0), (0, 0.5, 0.5)],
        spacegroup=221,
        cellpar=[constant] * 3 + [90] * 3,
    )
    slab = surface(bulk, (1, 1, 1), layers=4, vacuum=VACUUM_A)
    heights = slab.positions[:, 2]
    if skin:
        slab.symbols[np.flatnonzero(heights > heights.max() - 0.5)] = majority
    return slab[np.argsort(np.round(heights, 3), kind="stable")]


def all_slabs() -> dict[str, Atoms]:
    """Return the slabs by name, ready to be written."""
    slabs = {f"{metal}(111)": layered((metal,) * 4) for metal in PURE}
    slabs |= {name: layered(elements) for name, elements in LAYERED.items()}
    slabs |= {name: ordered(a, b, skin=s) for name, (a, b, s) in ORDERED.items()}
    for slab in slabs.values():
        slab.info.clear()
        slab.set_tags(0)
        slab.pbc = True
    return slabs


def main(path: Path) -> None:
    """Write the database anew."""
    path.unlink(missing_ok=True)
    with connect(path, use_lock_file=False) as database:
        for name, slab in all_slabs().items():
            database.write(slab, name=name)
    print(f"{path}: {len(all_slabs())} slabs")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples/surfaces.db"))
