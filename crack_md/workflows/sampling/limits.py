"""Limits of bond lengths, distances and energies that the reference sets.

A frame is spurious if it has

    a bond outside the 0.1 % and 99.9 % quantiles of the reference, 0.1 Å further out;
    a bond the reference has not: a pair as near as bonded atoms, and 0.1 Å nearer than
    the 0.1 % quantile of the reference;
    an energy below the 0.1 % quantile by more than a standard deviation, or above the
    99.9 % quantile by more than two.

A chain has blown up where a bond is 0.5 Å off its mean in the reference, as in Fu et
al., "Forces are not enough", arXiv:2210.07237, and twice as far as in any frame of it:
bonds of metals reach 0.5 Å now and then. Where the tail of N values is exponential, the
farthest is seen once, and twice as far has a chance of 1/N² each time.
"""

from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from jaxtyping import Bool, Float, Int

from crack_md.data.bonds import BLOW_UP_A, BOND_FACTOR, broken_bond, distances
from crack_md.data.torsions import BondGraph, Positions, free_pairs
from crack_md.workflows.sampling.molecule import energy_window

BOND_MARGIN_A = 0.1
QUANTILES = (0.001, 0.999)

Mask = Bool[np.ndarray, " frame"]


@dataclass(frozen=True)
class GeometryLimits:
    """Ranges of bond lengths and distances, in Å."""

    bonds: Int[np.ndarray, "bond 2"]
    shortest: Float[np.ndarray, " bond"]
    longest: Float[np.ndarray, " bond"]
    means: Float[np.ndarray, " bond"]
    breaking: Float[np.ndarray, " bond"]
    """How far off its mean a bond has come apart."""
    apart: Int[np.ndarray, "pair 2"]
    """Pairs that are not bonded."""
    nearest: Float[np.ndarray, " pair"]
    """What they do not come below."""

    @classmethod
    def of(cls, graph: BondGraph, frames: Positions) -> "GeometryLimits":
        """Return the limits that frames set; bonds that are alike share theirs."""
        bonds = np.array(graph.bonds)
        lengths = distances(frames, bonds)
        colors = [tuple(sorted((graph.colors[i], graph.colors[j]))) for i, j in bonds]
        low, high, means, breaking = (np.empty(len(bonds)) for _ in range(4))
        for color in set(colors):
            alike = np.array([other == color for other in colors])
            low[alike], high[alike] = np.quantile(lengths[:, alike], QUANTILES)
            means[alike] = lengths[:, alike].mean()
            farthest = np.abs(lengths[:, alike] - means[alike]).max(initial=0.0)
            breaking[alike] = max(BLOW_UP_A, 2.0 * farthest)
        apart = free_pairs(graph)
        radii = covalent_radii[np.array(graph.numbers)]
        seen = np.quantile(distances(frames, apart), QUANTILES[0], axis=0)
        nearest = np.minimum(
            BOND_FACTOR * radii[apart].sum(axis=1), seen - BOND_MARGIN_A
        )
        return cls(
            bonds,
            low - BOND_MARGIN_A,
            high + BOND_MARGIN_A,
            means,
            breaking,
            apart,
            nearest,
        )

    def unusual(self, frames: Positions) -> dict[str, Mask]:
        """Return which frames break which limit; what is not finite breaks it."""
        lengths = distances(frames, self.bonds)
        inside = (lengths >= self.shortest) & (lengths <= self.longest)
        beyond = distances(frames, self.apart) >= self.nearest
        return {
            "bond_length": np.any(~inside, axis=1),
            "new_bond": np.any(~beyond, axis=1),
        }

    def blow_up(self, frame: Float[np.ndarray, "atom 3"]) -> str | None:
        """Return what has come apart in a structure, or None."""
        return broken_bond(frame, self.bonds, self.means, self.breaking)


def spurious_frames(
    frames: Positions,
    energies: Float[np.ndarray, " frame"],
    *,
    limits: GeometryLimits,
    reference_energies: Float[np.ndarray, " reference"] | None,
) -> dict[str, Mask]:
    """Return which frames are spurious, "any" of them and by reason.

    Args:
        frames: positions in Å.
        energies: of these frames, on the scale of the reference, eV.
        limits: of the geometry.
        reference_energies: eV; None leaves energies out.
    """
    found = limits.unusual(frames)
    if reference_energies is not None:
        low, high = energy_window(reference_energies)
        found["energy_too_low"] = ~(energies >= low)
        found["energy_too_high"] = ~(energies <= high)
    found["any"] = np.any(list(found.values()), axis=0)
    return found
