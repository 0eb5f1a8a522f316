"""Make examples/surfaces.db: twenty fcc(111) slabs that the demo screens.

Ordered p(2x2) slabs of four layers: seven pure metals, six with a foreign layer under
or as a platinum skin, and seven L1_2 alloys. Those called Pt3Ni(111), Pt3Co(111) and
Pt3Cu(111) are cut from the bulk and have the second metal in the top layer; a "Pt skin"
has platinum alone there and the bulk below, and Pt/Ni/Pt(111) is platinum with one
layer of nickel under the top one. All slabs keep so much symmetry that they have four
or nine distinct sites: 135 relaxations in all.

    python examples/make_surfaces.py examples/surfaces.db
"""

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import fcc111, surface
from ase.db import connect
from ase.spacegroup import crystal

# Of fcc, to about 0.01 Å, as in tables of functionals (Haas, Tran and Blaha,
# doi:10.1103/PhysRevB.79.085104); Ni and fcc Co are ferromagnetic.
PBE_CONSTANT_A = {
    "Ag": 4.15,
    "Au": 4.16,
    "Co": 3.52,
    "Cu": 3.63,
    "Ir": 3.87,
    "Ni": 3.52,
    "Pd": 3.94,
    "Pt": 3.97,
    "Rh": 3.83,
}
# Both measure 3.84 Å to about 0.01 Å, 2.0 % less than Pt (3.92 Å): the same strain
# against PBE's Pt. Vegard's line would give 2.8 %, and so too weak an O* on the skins.
L12_CONSTANT_A = {"Pt3Ni": 3.89, "Pt3Co": 3.89}
PURE = ("Pt", "Pd", "Ag", "Au", "Cu", "Ir", "Rh")
LAYERED = {
    # from the surface down; the last element sets the lattice constant
    "Pt/Ni/Pt(111)": ("Pt", "Ni", "Pt", "Pt"),
    "Pt/Co/Pt(111)": ("Pt", "Co", "Pt", "Pt"),
    "Pt/Cu/Pt(111)": ("Pt", "Cu", "Pt", "Pt"),
    "Pt/Ru/Pt(111)": ("Pt", "Ru", "Pt", "Pt"),
    "Pt/Pd(111)": ("Pt", "Pd", "Pd", "Pd"),
    "Pt/Ir(111)": ("Pt", "Ir", "Ir", "Ir"),
}
ORDERED = {
    "Pt3Ni(111)": ("Pt", "Ni", False),
    "Pt3Ni(111) Pt skin": ("Pt", "Ni", True),
    "Pt3Co(111)": ("Pt", "Co", False),
    "Pt3Co(111) Pt skin": ("Pt", "Co", True),
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
    vegard = 0.75 * PBE_CONSTANT_A[majority] + 0.25 * PBE_CONSTANT_A[minority]
    constant = L12_CONSTANT_A.get(f"{majority}3{minority}", vegard)
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
