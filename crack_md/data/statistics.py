"""Statistics of labelled sets: units of a new model, and how far teachers disagree."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float, Int

from crack_md.data.dataset import LabelledStructure
from crack_md.errors import DataError
from crack_md.models.force_field import EnergyReference, EnergyScale
from crack_md.models.limits import LabelSpread, bonded_groups
from crack_md.models.short_range import ShortRange
from crack_md.neighbors import all_pairs
from crack_md.structures import NONMETALS

PRESSED_EV = 0.1
"""Short-range repulsion per atom beyond which a frame says little about the others."""


ALONE = 0.95
"""Times the cutoff: atoms farther apart are single atoms to a network."""


def fit_energy_scale(
    structures: Sequence[LabelledStructure],
    *,
    energy_reference: EnergyReference = "total",
    average_atoms: float = 1.0,
    short_range: ShortRange | None = None,
) -> EnergyScale:
    """Return the scale under which a new network starts near the labels.

    Total energies: each element gets the energy per atom that fits best (least squares
    of energies per atom), and one unit of a node's raw energy is the typical force
    times 1 Å, whatever the size of the structure. Adsorption energies: mean and spread
    of the set, no references.

    What a short-range repulsion explains is taken off first. Frames whose
    atoms are pressed together, with hundreds of eV, do not decide what is typical,
    unless an element occurs in no other.

    Args:
        structures: The training set.
        energy_reference: What the energies are.
        average_atoms: What the network divides its sum over atoms by.
        short_range: The repulsion to be taken off; None for none.
    """
    if short_range is not None:
        structures = _typical(structures, short_range)
    forces = np.concatenate([one.forces[one.free].ravel() for one in structures])
    force_std = _spread(forces, mean=0.0)
    energies = np.array([one.energy for one in structures])
    if energy_reference == "adsorption":
        mean = float(energies.mean())
        return EnergyScale(mean, _spread(energies, mean=mean), force_std)
    return EnergyScale(
        mean=0.0,
        std=force_std * average_atoms,
        force_std=force_std,
        element_references=fit_element_references(structures),
    )


def fit_element_references(structures: Sequence[LabelledStructure]) -> dict[int, float]:
    """Return energies in eV per atom by atomic number, by least squares.

    Elements that only occur together in fixed proportion have no unique answer; they
    get the smallest one.
    """
    numbers = [one.atoms.numbers for one in structures]
    elements = np.unique(np.concatenate(numbers))
    counts = np.array([[np.sum(row == z) for z in elements] for row in numbers], float)
    energies = np.array([one.energy for one in structures])
    sizes = counts.sum(axis=1, keepdims=True)
    fitted, *_ = np.linalg.lstsq(counts / sizes, energies / sizes[:, 0], rcond=None)
    return {int(z): float(energy) for z, energy in zip(elements, fitted, strict=True)}


def fit_isolated_references(
    structures: Sequence[LabelledStructure], cutoff: float
) -> dict[int, float]:
    """Return energies in eV of single atoms by atomic number, where frames tell.

    Those frames count in which every atom is alone: single atoms, and dimers that are
    pulled nearly to the cutoff.

    Args:
        structures: The training set.
        cutoff: Of the network, in Å.
    """
    alone = [one for one in structures if _is_pulled_apart(one.atoms, cutoff)]
    return fit_element_references(alone) if alone else {}


def _is_pulled_apart(atoms: Atoms, cutoff: float) -> bool:
    if len(atoms) > 2:  # nothing larger is made that way
        return False
    return not len(all_pairs(atoms, ALONE * cutoff).distance)


def _typical(
    structures: Sequence[LabelledStructure], short_range: ShortRange
) -> list[LabelledStructure]:
    """Return frames without the repulsion, but for those where it is strong."""
    bare, repulsion = without_short_range(structures, short_range)
    loose = [
        one
        for one, energy in zip(bare, repulsion, strict=True)
        if energy <= PRESSED_EV * len(one.atoms)
    ]
    return loose if _elements(loose) == _elements(structures) else bare


def _elements(structures: Sequence[LabelledStructure]) -> set[int]:
    return {int(z) for one in structures for z in set(one.atoms.numbers.tolist())}


def without_short_range(
    structures: Sequence[LabelledStructure], short_range: ShortRange
) -> tuple[list[LabelledStructure], Float[np.ndarray, " structure"]]:
    """Return frames minus a repulsion in energy and forces, and the repulsion in eV.

    Args:
        structures: Of the training set.
        short_range: The repulsion.
    """
    sizes = np.array([len(one.atoms) for one in structures], dtype=np.int64)
    near = [_near_pairs(one.atoms, short_range) for one in structures]
    vectors = torch.from_numpy(np.concatenate([pairs.vectors for pairs in near]))
    numbers = torch.from_numpy(np.concatenate([pairs.numbers for pairs in near]))
    first_atom = sizes.cumsum() - sizes
    receivers = torch.from_numpy(
        np.concatenate([p.receivers + f for p, f in zip(near, first_atom, strict=True)])
    )
    with torch.enable_grad():
        moved = vectors.to(short_range.radii.dtype).requires_grad_()
        lengths = torch.linalg.vector_norm(moved, dim=-1)
        energies = short_range.energies(lengths, numbers[:, 0], numbers[:, 1])
        # both directions of a pair are there, and either end has half of it
        (slope,) = torch.autograd.grad(energies.sum(), moved)
    by_atom = torch.zeros(int(sizes.sum()), dtype=torch.float64)
    by_atom.index_add_(0, receivers, energies.detach().double() / 2)
    forces = torch.zeros(int(sizes.sum()), 3, dtype=torch.float64)
    forces.index_add_(0, receivers, slope.double())
    repulsion = np.add.reduceat(by_atom.numpy(), first_atom)
    parts = np.split(forces.numpy(), first_atom[1:])
    bare = [
        replace(one, energy=one.energy - energy, forces=one.forces - force)
        for one, energy, force in zip(structures, repulsion, parts, strict=True)
    ]
    return bare, repulsion


class _NearPairs(NamedTuple):
    """Directed pairs within reach of a repulsion."""

    receivers: Int[np.ndarray, " pair"]
    vectors: Float[np.ndarray, "pair 3"]
    """From receiver to sender, in Å."""
    numbers: Int[np.ndarray, "pair 2"]


def _near_pairs(atoms: Atoms, short_range: ShortRange) -> _NearPairs:
    elements = torch.as_tensor(np.unique(atoms.numbers))
    found = all_pairs(atoms, float(short_range.reach(elements, elements).max()))
    shift = found.shift @ atoms.cell.array
    vectors = atoms.positions[found.sender] + shift - atoms.positions[found.receiver]
    ends = np.stack([found.receiver, found.sender], axis=1)
    return _NearPairs(found.receiver, vectors, atoms.numbers[ends])


def _spread(values: np.ndarray, *, mean: float) -> float:
    spread = float(np.sqrt(np.mean((values - mean) ** 2))) if len(values) else 0.0
    return spread if spread > 1e-6 else 1.0  # a set without forces still has a unit


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
