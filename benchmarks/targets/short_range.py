"""Whether energies rise without a break from the well of a bond to contact."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.build import fcc111
from ase.calculators.calculator import BaseCalculator
from ase.data import atomic_numbers, covalent_radii, reference_states

from benchmarks.targets.record import Check, Details, Subjects, knows

METALS = ("Ag", "Au", "Co", "Cu", "Fe", "Ir", "Ni", "Pd", "Pt", "Rh", "Ru")
ADSORBATES = ("O", "H")
NEAREST_A, STEP_A = 0.3, 0.03
BONDED = (0.75, 1.5)
"""Times the sum of covalent radii: where the well is looked for."""


@dataclass(frozen=True)
class Hole:
    """Where an energy falls although two atoms come nearer."""

    pair: str
    from_A: float
    """Distance where it begins to fall."""
    lowest_A: float
    """Distance of the lowest energy inside of that."""
    depth_eV: float
    """How far it falls."""
    below_well_eV: float
    """How far below the well it ends; negative where the well stays lowest."""


def find_hole(
    pair: str, distance_A: np.ndarray, energy_eV: np.ndarray, radii_A: float
) -> Hole | None:
    """Return the deepest fall of the energy inside of the well, if there is one.

    Args:
        pair: how the curve is called.
        distance_A: rising.
        energy_eV: at each distance.
        radii_A: sum of the covalent radii.
    """
    low, high = (factor * radii_A for factor in BONDED)
    bonded = np.flatnonzero((distance_A >= low) & (distance_A <= high))
    well = int(bonded[np.argmin(energy_eV[bonded])])
    inward = energy_eV[well::-1]
    highest = np.maximum.accumulate(inward)
    falls = highest - inward
    if not np.isfinite(inward).all():
        first = int(np.flatnonzero(~np.isfinite(inward))[0])
        where = float(distance_A[well - first])
        return Hole(pair, where, where, float("inf"), float("inf"))
    if not (np.diff(inward) <= 0).any():
        return None
    deepest = int(np.argmax(falls))
    begin = int(np.argmax(inward[: deepest + 1]))
    return Hole(
        pair,
        float(distance_A[well - begin]),
        float(distance_A[well - deepest]),
        float(falls[deepest]),
        float(inward[0] - inward[deepest]),
    )


def adsorbate_curve(
    adsorbate: str, metal: str, calculator: BaseCalculator
) -> Hole | None:
    """Return the hole above an atom of a rigid close-packed surface."""
    slab = fcc111(
        metal,
        (2, 2, 3),
        a=2**0.5 * nearest_neighbor(metal),
        vacuum=7.0,
        periodic=True,
    )
    top = slab.positions[np.argmax(slab.positions[:, 2])]

    def at(distance: float) -> Atoms:
        return slab + Atoms(adsorbate, [top + np.array([0.0, 0.0, distance])])

    return _scan(f"{adsorbate} above {metal}", at, (adsorbate, metal), calculator)


def dimer_curve(first: str, second: str, calculator: BaseCalculator) -> Hole | None:
    """Return the hole between two atoms in vacuum."""

    def at(distance: float) -> Atoms:
        places = [[0.0, 0.0, 0.0], [0.0, 0.0, distance]]
        return Atoms([first, second], places, cell=[12.0, 12.0, 16.0], pbc=True)

    return _scan(f"{first}–{second}", at, (first, second), calculator)


def scan_short_range(subjects: Subjects) -> tuple[list[Check], Details]:
    """Scan O and H above every metal and every metal dimer down to 0.3 Å."""
    calculator, info = subjects.student
    known = [metal for metal in METALS if knows(info, metal)]
    above = [
        adsorbate_curve(adsorbate, metal, calculator)
        for adsorbate in ADSORBATES
        for metal in known
    ]
    pairs = list(combinations_with_replacement(known, 2))
    dimers = [dimer_curve(*pair, calculator) for pair in pairs]
    holes = {
        "O and H above metals": [hole for hole in above if hole],
        "metal dimers": [hole for hole in dimers if hole],
    }
    counts = {"O and H above metals": len(above), "metal dimers": len(pairs)}
    checks = [
        Check(f"{what} with a hole", len(found), "", 0.0, n=counts[what])
        for what, found in holes.items()
    ]
    missing = [metal for metal in METALS if metal not in known]
    return checks, {
        "not_known": missing,
        "holes": {what: [vars(h) for h in found] for what, found in holes.items()},
    }


def nearest_neighbor(metal: str) -> float:
    """Return the measured distance of nearest neighbors in Å."""
    state = dict(reference_states[atomic_numbers[metal]] or {})
    factor = {"fcc": 0.5**0.5, "bcc": 0.75**0.5, "hcp": 1.0}[state["symmetry"]]
    return float(factor * state["a"])


def _scan(
    name: str,
    at: Callable[[float], Atoms],
    symbols: tuple[str, str],
    calculator: BaseCalculator,
) -> Hole | None:
    radii = float(sum(covalent_radii[atomic_numbers[symbol]] for symbol in symbols))
    distances = np.arange(NEAREST_A, BONDED[1] * radii + STEP_A, STEP_A)
    energies = []
    for distance in distances:
        atoms = at(distance)
        atoms.calc = calculator
        energies.append(float(atoms.get_potential_energy()))
    return find_hole(name, distances, np.array(energies), radii)
