"""Limiting potentials of many surfaces at once, and what an error in ΔG does to them.

All from one adsorbate: the other two intermediates come from it by linear scaling, so
each step is linear in its ΔG and U_L = -max(steps) is a concave, piecewise linear
function of it. Its extremes over an interval are therefore known exactly: the lowest
value is at an end, the highest at an end or at a corner inside.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from crack_md.errors import ConfigError
from crack_md.workflows.orr_sets import FOUR_ELECTRONS_EV, SCALINGS, ScalingSet

INTERMEDIATES = ("O", "OH", "OOH")


@dataclass(frozen=True)
class Volcano:
    """Limiting potential as a function of the ΔG of one adsorbate."""

    adsorbate: str
    lines: ScalingSet

    @classmethod
    def named(cls, adsorbate: str, scaling: str) -> "Volcano":
        """Return the volcano of an adsorbate under a named scaling.

        Raises:
            ConfigError: the adsorbate is no intermediate, or the scaling is unknown.
        """
        if adsorbate not in INTERMEDIATES:
            raise ConfigError(
                f"'{adsorbate}' is no intermediate of oxygen reduction; a limiting "
                f"potential needs one of: {', '.join(INTERMEDIATES)}"
            )
        if scaling not in SCALINGS:
            raise ConfigError(
                f"unknown scaling '{scaling}'; expected one of: {', '.join(SCALINGS)}"
            )
        return cls(adsorbate, SCALINGS[scaling])

    def intermediates(
        self, dG_eV: Float[ndarray, "*shape"]
    ) -> Float[ndarray, "*shape 3"]:
        """Return ΔG in eV of OOH*, O* and OH*."""
        lines = self.lines
        if self.adsorbate == "O":
            dG_OH = (dG_eV - lines.o_offset) / lines.o_slope
        elif self.adsorbate == "OOH":
            dG_OH = (dG_eV - lines.ooh_offset) / lines.ooh_slope
        else:
            dG_OH = dG_eV
        dG_O = lines.o_slope * dG_OH + lines.o_offset
        dG_OOH = lines.ooh_slope * dG_OH + lines.ooh_offset
        return np.stack([dG_OOH, dG_O, dG_OH], axis=-1)

    def steps(self, dG_eV: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape 4"]:
        """Return the free energies in eV of the four reduction steps at U = 0."""
        zeros = np.zeros((*np.shape(dG_eV), 1))
        states = [zeros + FOUR_ELECTRONS_EV, self.intermediates(dG_eV), zeros]
        return np.diff(np.concatenate(states, axis=-1), axis=-1)

    def potential(self, dG_eV: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
        """Return the limiting potential in V."""
        return -self.steps(dG_eV).max(axis=-1)

    @property
    def corners(self) -> Float[ndarray, " corner"]:
        """Return every ΔG in eV at which two steps are equal."""
        at_zero, at_one = self.steps(np.array([0.0, 1.0]))
        slope = at_one - at_zero
        i, j = np.triu_indices(4, k=1)
        apart = slope[i] != slope[j]
        i, j = i[apart], j[apart]
        return np.sort((at_zero[i] - at_zero[j]) / (slope[j] - slope[i]))

    @property
    def apex(self) -> tuple[float, float]:
        """Return ΔG in eV and the potential in V at the top."""
        corners = self.corners
        potentials = self.potential(corners)
        best = int(potentials.argmax())
        return float(corners[best]), float(potentials[best])

    def potential_range(
        self, low_eV: Float[ndarray, " slab"], high_eV: Float[ndarray, " slab"]
    ) -> tuple[Float[ndarray, " slab"], Float[ndarray, " slab"]]:
        """Return the lowest and highest potential in V over intervals of ΔG.

        What holds for ΔG with some probability holds for this range with at least that.
        """
        inside = np.clip(self.corners[:, None], low_eV, high_eV)  # (corner, slab)
        ends = self.potential(np.stack([low_eV, high_eV]))
        corners = self.potential(inside)
        return ends.min(axis=0), np.maximum(corners.max(axis=0), ends.max(axis=0))
