"""Asymmetry of the force Jacobian, zero where forces are the gradient of an energy."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from jaxtyping import Float
from numpy.typing import NDArray

DISPLACEMENT_A = 0.002
"""On our students in float64: truncation below 1e-8 and round-off below 1e-11; a step
of 0.01 leaves 2e-6, which looks like an asymmetry."""
STENCIL = ((1, 2 / 3), (-1, -2 / 3), (2, -1 / 12), (-2, 1 / 12))


@dataclass(frozen=True)
class Asymmetry:
    """‖J − Jᵀ‖ / ‖J‖ (Frobenius) of the force Jacobian J = ∂F/∂x in a subspace."""

    value: float
    n_directions: int
    n_coordinates: int


def force_asymmetry(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    directions: int,
    rng: np.random.Generator,
    displacement_A: float = DISPLACEMENT_A,
) -> Asymmetry:
    """Return the asymmetry of QᵀJQ for random orthonormal Q; of J itself where small.

    J Q comes from central differences (four calls each direction). Constraints are not
    applied: this is a property of the model.
    """
    basis = _random_basis(3 * len(atoms), directions, rng)
    moved = atoms.copy()
    moved.set_constraint()
    moved.calc = calculator
    columns = [
        _derivative(moved, atoms.positions, direction, displacement_A)
        for direction in basis.T
    ]
    projected = basis.T @ np.stack(columns, axis=1)
    value = np.linalg.norm(projected - projected.T) / np.linalg.norm(projected)
    return Asymmetry(float(value), basis.shape[1], basis.shape[0])


def _random_basis(
    size: int, count: int, rng: np.random.Generator
) -> Float[NDArray[np.float64], "coordinate direction"]:
    if count >= size:
        return np.eye(size)
    basis, _ = np.linalg.qr(rng.standard_normal((size, count)))
    return basis


def _derivative(
    moved: Atoms,
    origin: Float[NDArray[np.float64], "atom 3"],
    direction: Float[NDArray[np.float64], " coordinate"],
    step: float,
) -> Float[NDArray[np.float64], " coordinate"]:
    """Return J·direction in eV/Å², to fourth order in the step."""
    total = np.zeros(origin.size)
    for factor, weight in STENCIL:
        moved.positions = origin + factor * step * direction.reshape(-1, 3)
        total += weight * moved.get_forces().ravel()
    return total / step
