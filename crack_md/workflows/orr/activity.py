"""Limiting potentials of many surfaces at once, and what an error in ΔG does to them.

Of O*, OH* and OOH* any may be known; the others come by linear scaling. Each step is
then linear in what is known, and U_L = -max(steps) is a concave, piecewise linear
function. Over an interval of one ΔG its extremes are therefore known exactly: the
lowest value is at an end, the highest at an end or at a corner inside.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from crack_md.errors import ConfigError
from crack_md.workflows.orr.constants import FOUR_ELECTRONS_EV, SCALINGS

INTERMEDIATES = ("OOH", "O", "OH")


def complete(
    known: Mapping[str, Float[ndarray, "*shape"]], scaling: str
) -> Float[ndarray, "*shape 3"]:
    """Return ΔG in eV of OOH*, O* and OH* from at least one of them.

    What is missing comes from ΔG_OH by scaling; a missing ΔG_OH comes from ΔG_O, or
    else from ΔG_OOH.
    """
    lines = SCALINGS[scaling]
    if "OH" in known:
        dG_OH = np.asarray(known["OH"], dtype=float)
    elif "O" in known:
        dG_OH = (np.asarray(known["O"]) - lines.o_offset) / lines.o_slope
    else:
        dG_OH = (np.asarray(known["OOH"]) - lines.ooh_offset) / lines.ooh_slope
    dG_O = known.get("O", lines.o_slope * dG_OH + lines.o_offset)
    dG_OOH = known.get("OOH", lines.ooh_slope * dG_OH + lines.ooh_offset)
    return np.stack([dG_OOH, dG_O, dG_OH], axis=-1)


def free_energy_levels(
    known: Mapping[str, Float[ndarray, "*shape"]], scaling: str
) -> Float[ndarray, "*shape 5"]:
    """Return ΔG in eV of O2, OOH*, O*, OH* and H2O at U = 0."""
    between = complete(known, scaling)
    zeros = np.zeros((*between.shape[:-1], 1))
    return np.concatenate([zeros + FOUR_ELECTRONS_EV, between, zeros], axis=-1)


def reduction_steps(
    known: Mapping[str, Float[ndarray, "*shape"]], scaling: str
) -> Float[ndarray, "*shape 4"]:
    """Return the free energies in eV of the four reduction steps at U = 0."""
    return np.diff(free_energy_levels(known, scaling), axis=-1)


def limiting_potentials(
    known: Mapping[str, Float[ndarray, "*shape"]], scaling: str
) -> Float[ndarray, "*shape"]:
    """Return the limiting potential in V from any of ΔG_O, ΔG_OH and ΔG_OOH in eV."""
    # one surface gives an array too, without axes
    return np.asarray(-reduction_steps(known, scaling).max(axis=-1))


@dataclass(frozen=True)
class Volcano:
    """Limiting potential as a function of the ΔG of one adsorbate."""

    adsorbate: str
    scaling: str

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
        return cls(adsorbate, scaling)

    @property
    def source(self) -> str:
        """Return where the scaling comes from."""
        return SCALINGS[self.scaling].source

    @property
    def others(self) -> "tuple[Volcano, ...]":
        """Return the volcanoes of the same adsorbate under all other scalings."""
        names = [name for name in SCALINGS if name != self.scaling]
        return tuple(Volcano(self.adsorbate, name) for name in names)

    def potential(self, dG_eV: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
        """Return the limiting potential in V."""
        return limiting_potentials({self.adsorbate: dG_eV}, self.scaling)

    @property
    def corners(self) -> Float[ndarray, " corner"]:
        """Return every ΔG in eV at which two steps are equal."""
        ends = {self.adsorbate: np.array([0.0, 1.0])}
        at_zero, at_one = reduction_steps(ends, self.scaling)
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
