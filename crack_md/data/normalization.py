"""Units of a new model: element references and scales, fitted to its training set."""

from collections.abc import Sequence

import numpy as np

from crack_md.data.dataset import LabelledStructure
from crack_md.models.force_field import EnergyReference, EnergyScale


def fit_energy_scale(
    structures: Sequence[LabelledStructure],
    *,
    energy_reference: EnergyReference = "total",
    average_atoms: float = 1.0,
) -> EnergyScale:
    """Return the scale under which a new network starts near the labels.

    Total energies: each element gets the energy per atom that fits best (least squares
    of energies per atom), and one unit of a node's raw energy is the typical force
    times 1 Å, whatever the size of the structure. Adsorption energies: mean and spread
    of the set, no references.

    Args:
        structures: The training set.
        energy_reference: What the energies are.
        average_atoms: What the network divides its sum over atoms by.
    """
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


def _spread(values: np.ndarray, *, mean: float) -> float:
    spread = float(np.sqrt(np.mean((values - mean) ** 2))) if len(values) else 0.0
    return spread if spread > 1e-6 else 1.0  # a set without forces still has a unit
