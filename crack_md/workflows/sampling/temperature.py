"""Temperature of frames, estimated from positions and forces alone.

For any vector field B of the positions, samples of exp(−U/kT) obey

    kT = −⟨F·B⟩ / ⟨∇·B⟩

(Jepps, Ayton and Evans, Phys. Rev. E 62, 4757 (2000)). Frames sampled with another
potential than the one that gave the forces F do not, so this tests both at once:
whether the labels belong to the frames, and the temperature.

Virial: B = r, so that kT = −⟨Σ r·F⟩ / (3N − 6). It asks for bond lengths that fit the
forces to a thousandth of an Å, which makes it a sharp test of the labels and a noisy
thermometer. The divisor is that of dynamics without overall motion. Where a thermostat
turns the molecule, as Langevin noise does, the divisor would be 3N − 3: this then reads
(3N − 3)/(3N − 6) times the temperature, 14 % too high for ethanol. Linear molecules
have 3N − 5.

Bonds: B = (d − ⟨d⟩) d̂ on one atom of a bond of length d, with ∇·B = 1 + 2 (d − ⟨d⟩)/d,
summed over all bonds and both ends. It weighs the slope of the forces alone: less
sharp about labels, ten times less noisy.
"""

from dataclasses import dataclass

import numpy as np
from ase import units
from jaxtyping import Float

from crack_md.data.torsions import BondGraph, Positions
from crack_md.workflows.sampling.metrics import block_error


@dataclass(frozen=True)
class Temperature:
    """A temperature in K and its standard error from blocks in time."""

    value: float
    error: float

    def is_off(
        self, expected_K: float, *, tolerance: float, spread: float = 1.0
    ) -> bool:
        """Return whether it differs by more than a share of what is expected.

        Args:
            expected_K: what it should be.
            tolerance: the share.
            spread: factor by which it may exceed the expected one besides.
        """
        low, high = (1.0 - tolerance) * expected_K, (1.0 + tolerance) * expected_K
        return not low <= self.value <= spread * high

    def __str__(self) -> str:
        """Return it as it is printed: 621 ± 33 K."""
        return f"{self.value:.0f} ± {self.error:.0f} K"


@dataclass(frozen=True)
class Thermometers:
    """What a reference shows of its temperature; None without forces."""

    virial: Temperature | None
    bonds: Temperature | None
    turning: float = 1.0
    """Factor by which overall rotation of the molecule raises the virial one."""


def measure_thermometers(
    positions: Positions, forces: Positions | None, graph: BondGraph
) -> Thermometers:
    """Return the temperatures of frames in the order of time."""
    if forces is None:
        return Thermometers(None, None)
    n_vibrations = count_vibrations(positions)
    return Thermometers(
        virial_temperature(positions, forces),
        bond_temperature(positions, forces, graph),
        (3 * positions.shape[1] - 3) / n_vibrations,
    )


def count_vibrations(positions: Positions) -> int:
    """Return 3N − 6, or 3N − 5 for a molecule that is a line in most frames."""
    arms = positions - positions.mean(axis=1, keepdims=True)
    extent = np.linalg.svd(arms, compute_uv=False)
    is_line = np.median(extent[:, 1] / extent[:, 0]) < 0.15
    return 3 * positions.shape[1] - (5 if is_line else 6)


def virial_temperature(positions: Positions, forces: Positions) -> Temperature:
    """Return −⟨Σ r·F⟩ / ((3N − 6) k), with frames in the order of time.

    Args:
        positions: Å; their origin does not matter.
        forces: eV/Å.
    """
    arms = positions - positions.mean(axis=1, keepdims=True)
    virial = -np.sum(arms * forces, axis=(1, 2))
    per_frame = virial / (count_vibrations(positions) * units.kB)
    return Temperature(float(per_frame.mean()), block_error(per_frame))


def bond_temperature(
    positions: Positions, forces: Positions, graph: BondGraph
) -> Temperature:
    """Return −⟨F·B⟩ / (k ⟨∇·B⟩) with B along all bonds, frames in the order of time."""
    work = np.zeros(len(positions))
    divergence = np.zeros(len(positions))
    for i, j in graph.bonds:
        vector = positions[:, i] - positions[:, j]
        length: Float[np.ndarray, " frame"] = np.linalg.norm(vector, axis=-1)
        stretch = length - length.mean()
        along = np.sum((forces[:, i] - forces[:, j]) * vector, axis=-1) / length
        work -= stretch * along
        divergence += 2.0 * (1.0 + 2.0 * stretch / length)
    per_frame = work / (units.kB * divergence.mean())
    return Temperature(float(per_frame.mean()), block_error(per_frame))
