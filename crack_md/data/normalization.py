"""Units of a new model: element references and scales, fitted to its training set."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from crack_md.data.dataset import LabelledStructure
from crack_md.models.force_field import EnergyReference, EnergyScale
from crack_md.models.network import Network
from crack_md.neighbors import SmoothNeighbors, build_graph

PRESSED_EV = 0.1
"""Short-range repulsion per atom beyond which a frame says little about the others."""


def fit_energy_scale(
    structures: Sequence[LabelledStructure],
    *,
    energy_reference: EnergyReference = "total",
    average_atoms: float = 1.0,
    network: Network | None = None,
) -> EnergyScale:
    """Return the scale under which a new network starts near the labels.

    Total energies: each element gets the energy per atom that fits best (least squares
    of energies per atom), and one unit of a node's raw energy is the typical force
    times 1 Å, whatever the size of the structure. Adsorption energies: mean and spread
    of the set, no references.

    What a network's short-range repulsion explains is taken off first. Frames whose
    atoms are pressed together, with hundreds of eV, do not decide what is typical,
    unless an element occurs in no other.

    Args:
        structures: The training set.
        energy_reference: What the energies are.
        average_atoms: What the network divides its sum over atoms by.
        network: Whose short-range repulsion is to be taken off; None for no repulsion.
    """
    if network is not None and network.short_range is not None:
        structures = _typical(structures, network)
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


def _typical(
    structures: Sequence[LabelledStructure], network: Network
) -> list[LabelledStructure]:
    """Return frames without the repulsion, but for those where it is strong."""
    pairs = [without_short_range(one, network) for one in structures]
    loose = [
        bare for bare, repulsion in pairs if repulsion <= PRESSED_EV * len(bare.atoms)
    ]
    if _elements(loose) == _elements(structures):
        return loose
    return [bare for bare, _ in pairs]


def _elements(structures: Sequence[LabelledStructure]) -> set[int]:
    return {int(z) for one in structures for z in set(one.atoms.numbers.tolist())}


def without_short_range(
    structure: LabelledStructure, network: Network
) -> tuple[LabelledStructure, float]:
    """Return the frame minus the network's repulsion in energy and forces, and that.

    Args:
        structure: Of the training set.
        network: With a short-range repulsion.
    """
    assert network.short_range is not None
    numbers = torch.as_tensor(np.unique(structure.atoms.numbers))
    reach = float(network.short_range.reach(numbers, numbers).max())
    graph = build_graph(structure.atoms, SmoothNeighbors(cutoff=reach))
    positions = graph.positions.requires_grad_()
    with torch.enable_grad():
        energy = network.pair_energy(graph._replace(positions=positions)).sum()
    if not energy.requires_grad:  # no atoms are that near
        return structure, 0.0
    (slope,) = torch.autograd.grad(energy, positions)
    forces = structure.forces + slope.double().numpy()
    repulsion = energy.item()
    left = structure.energy - repulsion
    return replace(structure, energy=left, forces=forces), repulsion


def _spread(values: np.ndarray, *, mean: float) -> float:
    spread = float(np.sqrt(np.mean((values - mean) ** 2))) if len(values) else 0.0
    return spread if spread > 1e-6 else 1.0  # a set without forces still has a unit
