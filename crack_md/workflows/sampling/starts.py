"""Starting structures of chains: half frames of the reference, half over-dispersed.

The second half has its torsions turned by random angles, all of the circle alike, so
that chains must find back to the same distribution from other wells. Turned structures
with atoms nearer than the reference ever brings them are drawn again. Molecules without
torsions start from the frames of highest energy instead.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.data.bonds import distances
from crack_md.workflows.sampling.limits import free_pairs
from crack_md.workflows.sampling.molecule import BondGraph
from crack_md.workflows.sampling.observables import MoleculeTopology
from crack_md.workflows.sampling.reference import ReferenceFrames

TRIES = 200
NEAR = 0.9
"""Share of the smallest distance in the reference that turned atoms keep."""

Structure = Float[NDArray[np.float64], "atom 3"]
Structures = Float[NDArray[np.float64], "chain atom 3"]


def starting_positions(
    reference: ReferenceFrames, molecule: MoleculeTopology, *, n_chains: int, seed: int
) -> Structures:
    """Return the first positions of all chains: typical ones, then spread ones."""
    rng = np.random.default_rng(seed)
    n_typical = n_chains - n_chains // 2
    enough = len(reference) >= n_chains
    chosen = rng.choice(len(reference), n_chains, replace=not enough)
    starts = reference.positions[chosen]
    if not molecule.torsions:
        starts[n_typical:] = _of_high_energy(reference, n_chains - n_typical, rng)
        return starts
    nearest = _nearest(reference, molecule)
    for place in range(n_typical, n_chains):
        starts[place] = _turn_torsions(starts[place], molecule, nearest, rng)
    return starts


def turn_bond(
    positions: Structure, graph: BondGraph, bond: tuple[int, int], degrees: float
) -> Structure:
    """Return a structure with the far side of a bond turned about it.

    The torsion a–b–c–d about bond (b, c) grows by the angle (Rodrigues' formula).
    """
    b, c = bond
    moved = sorted(graph.side(c, without=bond))
    axis = positions[c] - positions[b]
    axis = axis / np.linalg.norm(axis)
    arms, angle = positions[moved] - positions[c], np.radians(degrees)
    along = np.outer(arms @ axis, axis)
    turned = positions.copy()
    turned[moved] = (
        positions[c]
        + along
        + np.cos(angle) * (arms - along)
        + np.sin(angle) * np.cross(axis, arms)
    )
    return turned


def _turn_torsions(
    start: Structure,
    molecule: MoleculeTopology,
    nearest: Float[NDArray[np.float64], " pair"],
    rng: np.random.Generator,
) -> Structure:
    """Return a structure with all torsions at random angles and no atoms too near."""
    quadruples = [atoms for torsion in molecule.torsions for atoms in torsion.atoms]
    bonds = sorted({(b, c) for _, b, c, _ in quadruples})
    pairs = free_pairs(molecule.graph)
    for _ in range(TRIES):
        turned = start
        for bond in bonds:
            angle = rng.uniform(-180.0, 180.0)
            turned = turn_bond(turned, molecule.graph, bond, angle)
        if (distances(turned[None], pairs)[0] >= nearest).all():
            return turned
    return start  # too crowded to turn anything: as dispersed as the reference


def _nearest(
    reference: ReferenceFrames, molecule: MoleculeTopology
) -> Float[NDArray[np.float64], " pair"]:
    """Return how near atoms that are not bonded may come, from pairs of their kind."""
    pairs = free_pairs(molecule.graph)
    smallest = distances(reference.positions, pairs).min(axis=0)
    kinds = np.sort(reference.numbers[pairs], axis=1)
    of_kind = [smallest[(kinds == kind).all(axis=1)].min() for kind in kinds]
    return NEAR * np.array(of_kind)


def _of_high_energy(
    reference: ReferenceFrames, count: int, rng: np.random.Generator
) -> Structures:
    if reference.energies is None:
        return reference.positions[rng.choice(len(reference), count)]
    highest = np.argsort(reference.energies)[-max(count, len(reference) // 20) :]
    chosen = rng.choice(highest, count, replace=len(highest) < count)
    return reference.positions[chosen]
