"""Bonds of molecules, from distances and covalent radii."""

import numpy as np
from ase.data import covalent_radii
from jaxtyping import Float, Int

BOND_FACTOR = 1.25
"""A bond is shorter than this times the sum of covalent radii: O–H 0.97 of 1.21 Å, but
not a hydrogen bond, 1.6 Å."""
BLOW_UP_A = 0.5
"""A molecule has come apart where a bond is so far off its mean, as in Fu et al.,
"Forces are not enough", arXiv:2210.07237."""

Frames = Float[np.ndarray, "frame atom 3"]
Bonds = Int[np.ndarray, "bond 2"]


def bonded_pairs(numbers: Int[np.ndarray, " atom"], frames: Frames) -> Bonds:
    """Return the pairs i < j whose median distance is that of a bond, ascending."""
    radii = covalent_radii[numbers]
    first, second = np.triu_indices(len(numbers), k=1)
    median = np.median(distances(frames, np.stack([first, second], 1)), axis=0)
    bonded = median < BOND_FACTOR * (radii[first] + radii[second])
    return np.stack([first[bonded], second[bonded]], axis=1)


def distances(
    frames: Frames, pairs: Int[np.ndarray, "pair 2"]
) -> Float[np.ndarray, "frame pair"]:
    """Return the distances of pairs of atoms in every frame, in Å."""
    vectors = frames[:, pairs[:, 0]] - frames[:, pairs[:, 1]]
    return np.linalg.norm(vectors, axis=-1)


def broken_bond(
    frame: Float[np.ndarray, "atom 3"],
    bonds: Bonds,
    means: Float[np.ndarray, " bond"],
    most: float | Float[np.ndarray, " bond"] = BLOW_UP_A,
) -> str | None:
    """Return which bond of a structure has come apart, or None.

    Args:
        frame: positions in Å.
        bonds: pairs of atoms.
        means: their usual lengths in Å.
        most: how far off them they may be, in Å.
    """
    if not len(bonds):
        return None
    off = distances(frame[None], bonds)[0] - means
    worst = int(np.argmax(np.abs(off) - most))
    if not (np.abs(off) > most)[worst]:
        return None
    i, j = bonds[worst]
    return f"bond {i}–{j} is {off[worst]:+.2f} Å off its mean"
