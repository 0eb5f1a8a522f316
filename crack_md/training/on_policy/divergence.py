"""Frames that no structure of matter looks like, and why.

Reasons start with one word, which tables count: not_finite, force, energy_jump,
contact, evaporated.
"""

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from crack_md.neighbors import all_pairs
from crack_md.training.on_policy.config import Limits

REASONS = ("not_finite", "force", "energy_jump", "contact", "evaporated")


def why_forces_diverged(
    energy: float,
    forces: Float[np.ndarray, "atom 3"],
    limits: Limits,
    *,
    before: float | None,
) -> str | None:
    """Return why an answer of the student cannot be meant, or None.

    Args:
        energy: eV.
        forces: eV/Å.
        limits: Of the loop.
        before: Energy of the step before, if there was one.
    """
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        return "not_finite: energy or forces"
    largest = float(np.linalg.norm(forces, axis=1).max())
    if largest > limits.largest_force:
        return f"force: {largest:.1f} eV/Å, above {limits.largest_force:g}"
    if before is None:
        return None
    jump = abs(energy - before) / len(forces)
    if jump > limits.energy_jump_eV_per_atom:
        return (
            f"energy_jump: {jump:.2f} eV/atom in a step, above "
            f"{limits.energy_jump_eV_per_atom:g}"
        )
    return None


def why_shape_diverged(atoms: Atoms, limits: Limits, *, n_pieces: int) -> str | None:
    """Return why a structure has fallen in or apart, or None.

    Args:
        atoms: With finite positions.
        limits: Of the loop.
        n_pieces: `count_pieces` of the start.
    """
    pairs = all_pairs(atoms, limits.evaporated_A)
    radii = covalent_radii[atoms.numbers]
    closeness = pairs.distance / (radii[pairs.receiver] + radii[pairs.sender])
    if len(closeness) and closeness.min() < limits.closest:
        worst = int(closeness.argmin())
        ends = atoms.symbols[[pairs.receiver[worst], pairs.sender[worst]]]
        return (
            f"contact: {'-'.join(sorted(ends))} at {pairs.distance[worst]:.2f} Å, "
            f"{closeness[worst]:.2f} of the sum of radii"
        )
    if _count(len(atoms), pairs.receiver, pairs.sender) > n_pieces:
        return f"evaporated: a gap of more than {limits.evaporated_A:g} Å opened"
    return None


def count_pieces(atoms: Atoms, gap_A: float) -> int:
    """Return in how many pieces a structure is, with gaps wider than this between."""
    pairs = all_pairs(atoms, gap_A)
    return _count(len(atoms), pairs.receiver, pairs.sender)


def category(reason: str) -> str:
    """Return the word that tables count."""
    return reason.partition(":")[0]


def _count(n_atoms: int, first: np.ndarray, second: np.ndarray) -> int:
    joined = coo_array((np.ones(len(first)), (first, second)), shape=(n_atoms, n_atoms))
    return int(connected_components(joined, directed=False, return_labels=False))
