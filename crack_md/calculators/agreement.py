"""How far a compiled model may be from itself."""

import torch

from crack_md.models.base import Prediction
from crack_md.models.force_field import ForceField

AGREEMENT = {torch.float32: 2e-4, torch.float64: 1e-9}
ROUNDED_AGREEMENT = {"tf32": 2e-3, "bfloat16": 2e-2}
"""Of models whose factors are rounded: another order of sums rounds others."""


def largest_difference(model: ForceField) -> float:
    """Return what `difference_of` two evaluations of a model may be at most."""
    return ROUNDED_AGREEMENT.get(model.products, AGREEMENT[model.dtype])


def difference_of(one: Prediction, other: Prediction) -> float:
    """Return the largest difference of forces and of energies of atoms, relative."""
    assert one.node_energy is not None
    assert other.node_energy is not None
    forces = (one.forces - other.forces).abs().max() / other.forces.abs().max()
    spread = other.node_energy.abs().max()
    energies = (one.node_energy - other.node_energy).abs().max() / spread
    return float(torch.maximum(forces.double(), energies.double()))
