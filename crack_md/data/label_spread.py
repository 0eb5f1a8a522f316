"""How far the teachers of a labelled set disagree about adsorption, by metals."""

from collections.abc import Iterable, Sequence

import numpy as np
from ase import Atoms

from crack_md.errors import DataError
from crack_md.models.limits import NONMETALS, LabelSpread, bonded_groups

LARGEST_FORCE = 2.0
"""eV/Å; frames far from rest say little about the energies of minima."""


def label_spreads(
    structures: Iterable[Atoms], metal_sets: Sequence[frozenset[int]]
) -> tuple[LabelSpread, ...]:
    """Return the root mean square of the spread per adsorbate in eV, by set of metals.

    A frame counts for the smallest of the sets that holds all its metals. Frames
    without an adsorbate, without a spread, or with large forces do not count.

    Args:
        structures: with ``teacher_spread`` in their info, as `crack-md label` writes.
        metal_sets: atomic numbers.

    Raises:
        DataError: a set has no frame.
    """
    ordered = sorted(metal_sets, key=len)
    found: dict[frozenset[int], list[float]] = {metals: [] for metals in ordered}
    for atoms in structures:
        metals = set(atoms.numbers.tolist()) - NONMETALS
        smallest = next((each for each in ordered if metals <= each), None)
        spread = _spread_per_adsorbate(atoms) if metals else None
        if smallest is not None and spread is not None:
            found[smallest].append(spread)
    for home, spreads in found.items():
        if not spreads:
            symbols = Atoms(sorted(home)).get_chemical_formula()
            raise DataError(
                f"no frame with an adsorbate and a teacher_spread for the metals "
                f"{symbols}; give their spread_eV in the file of limits, or leave the "
                "set out"
            )
    return tuple(
        LabelSpread(home, float(np.sqrt(np.mean(np.square(spreads)))))
        for home, spreads in found.items()
    )


def _spread_per_adsorbate(atoms: Atoms) -> float | None:
    adsorbed = np.isin(atoms.numbers, sorted(NONMETALS))
    spread = atoms.info.get("teacher_spread")
    if spread is None or not adsorbed.any():
        return None
    forces = atoms.info.get("teacher_forces")
    if forces is None and atoms.calc is not None:
        forces = atoms.calc.results.get("forces")
    if forces is not None:
        norms = np.linalg.norm(np.reshape(forces, (-1, 3)), axis=1)
        if norms.max() > LARGEST_FORCE:
            return None
    return float(spread) / len(bonded_groups(atoms[adsorbed]))
