"""Signs of formation and segregation on five alloys, beside what is published.

    python benchmarks/stability.py --out runs/stability

L1_2 crystals are relaxed by the model and cut along (111), a quarter of each layer
being the second metal; Pt/Ni/Pt(111) is platinum with a second layer of nickel at
platinum's lattice constant. One row for each element that is beneath another one:
energy to bring it up, clean and under a quarter of a monolayer of O*.
"""

import argparse
from pathlib import Path

from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import BaseCalculator

from crack_md import screen
from crack_md.api.inputs import load_potential
from crack_md.structures import StructureEntry
from crack_md.workflows.relax.relax import best_constant
from crack_md.workflows.surfaces.cut import CutSettings, cut_entries, parse_planes

L1_2 = {
    "Pt3Ni": ("Pt", "Ni", 3.85),
    "Pt3Co": ("Pt", "Co", 3.86),
    "Cu3Pt": ("Cu", "Pt", 3.70),
    "Pd3Ag": ("Pd", "Ag", 3.97),
}
"""Majority, minority, and about which lattice constant in Å."""
PUBLISHED = {
    ("Pt3Ni(111)", "Pt"): (-1, 1, "Ma and Balbuena, Surf. Sci. 603, 349 (2009)"),
    ("Pt3Ni(111)", "Ni"): (1, 1, "the same"),
    ("Pt3Co(111)", "Pt"): (-1, 1, "the same"),
    ("Pt3Co(111)", "Co"): (1, 1, "the same"),
    ("Cu3Pt(111)", "Pt"): (-1, 0, "Yuge et al., Phys. Rev. B 76, 045407 (2007)"),
    ("Pd3Ag(111)", "Ag"): (-1, 0, "Løvvik and Opalka, Surf. Sci. 602, 2840 (2008)"),
    ("Pd3Ag(111)", "Pd"): (
        1,
        -1,
        "clean: the same; O: Kitchin et al., Phys. Rev. B 77, 075437 (2008), Ag3Pd",
    ),
    ("Pt/Ni/Pt(111)", "Ni"): (
        1,
        -1,
        "Menning et al., J. Phys. Chem. B 110, 15471 (2006)",
    ),
}
"""Signs clean and with O*, 0 where none is known, and by whom."""


def slabs(calculator: BaseCalculator) -> list[Atoms]:
    """Return the five alloys and Pt(111)."""
    cut = CutSettings(parse_planes("111"), thickness_A=6.0, vacuum_A=15.0, width_A=4.9)
    made = []
    for name, (many, few, expected) in L1_2.items():

        def crystal(a: float, many: str = many, few: str = few) -> Atoms:
            places = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
            return Atoms(
                [few] + 3 * [many], scaled_positions=places, cell=3 * [a], pbc=True
            )

        ordered = crystal(best_constant(crystal, expected, calculator))
        (entry,) = cut_entries([StructureEntry(name, ordered)], cut)
        assert entry.atoms is not None
        made.append(_named(entry.atoms, f"{name}(111)"))
    constant = best_constant(lambda a: bulk("Pt", "fcc", a=a), 3.95, calculator)
    for name, layer in (("Pt/Ni/Pt(111)", "Ni"), ("Pt(111)", "Pt")):
        slab = fcc111("Pt", (2, 2, 4), a=constant, vacuum=8.0)
        slab.symbols[8:12] = layer
        made.append(_named(slab, name))
    return made


def _named(atoms: Atoms, name: str) -> Atoms:
    atoms.info = {"name": name}
    return atoms


def _sign(value: float | None, expected: int) -> str:
    """Return a number, with what is published where it has the other sign."""
    if value is None:
        return "–"
    wrong = expected and value * expected < 0
    return f"{value:+.2f}" + (f" (**{'+' if expected > 0 else '−'}**)" if wrong else "")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="default")
    given = parser.parse_args()
    calculator, model = load_potential(given.model, device="cpu")
    found = screen(
        slabs(calculator),
        calculator,
        adsorbates="orr",
        out=given.out,
        model=model,
        orientations=1,
        stability=True,
    )
    print("| slab | E_f / eV per atom | U_L / V | dissolves first / V |")
    print("|---|---:|---:|---:|")
    for row in found.rows:
        print(
            f"| {row['slab']} | {row['formation_eV_per_atom']:+.3f} | "
            f"{row['U_L_V']:.2f} | {row['dissolution_element']} "
            f"{row['dissolution_V']:+.2f} |"
        )
    print("\n| slab | up | clean / eV | with O* / eV | published by |")
    print("|---|---|---:|---:|---|")
    for (name, element), (clean, covered, source) in PUBLISHED.items():
        atoms = {a.element: a for a in found.result.stability[name].atoms}
        atom = atoms[element]
        print(
            f"| {name} | {element} | {_sign(atom.segregation_eV, clean)} | "
            f"{_sign(atom.segregation_adsorbed_eV, covered)} | {source} |"
        )


if __name__ == "__main__":
    main()
