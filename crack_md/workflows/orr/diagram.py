"""Free energies of the steps of oxygen reduction, potentials, and the volcano.

Computational hydrogen electrode, pH 0, relative to 2 H2O and H+ + e-:

    ΔG1 = ΔG_OOH - 4.92    ΔG2 = ΔG_O - ΔG_OOH    ΔG3 = ΔG_OH - ΔG_O    ΔG4 = -ΔG_OH

each + eU. The limiting potential is U_L = -max ΔG / e. Of O*, OH* and OOH* any may be
computed; `complete_free_energies` infers the others by linear scaling, and results say
which. Each step is then linear in what is known, and U_L is a concave, piecewise linear
function of it: over an interval of one ΔG its lowest value is at an end, its highest at
an end or at a corner inside.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from crack_md.errors import ConfigError
from crack_md.workflows.orr.sets import (
    CORRECTIONS,
    DEFAULT_CORRECTIONS,
    DEFAULT_SCALING,
    FOUR_ELECTRONS_EV,
    NO_SOLVATION,
    SCALINGS,
    SOLVATIONS,
)

EQUILIBRIUM_V = 1.23
INTERMEDIATES = ("OOH", "O", "OH")
STATES = ("O2", "OOH*", "O*", "OH*", "H2O")
"""The five levels of a diagram, from left to right."""
ELECTRONS_LEFT = (4, 3, 2, 1, 0)


def complete_free_energies(
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
    between = complete_free_energies(known, scaling)
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
class OrrSteps:
    """Free energies of the four reduction steps in eV at U = 0."""

    step_1: float
    step_2: float
    step_3: float
    step_4: float

    @property
    def all(self) -> tuple[float, float, float, float]:
        """Return the four free energies in order."""
        return self.step_1, self.step_2, self.step_3, self.step_4

    @property
    def limiting_potential(self) -> float:
        """Return the highest potential in V at which every step runs downhill."""
        return -max(self.all)

    @property
    def limiting_step(self) -> int:
        """Return the number, 1 to 4, of the step that limits the potential."""
        return self.all.index(max(self.all)) + 1

    @property
    def overpotential(self) -> float:
        """Return 1.23 V minus the limiting potential, in V."""
        return EQUILIBRIUM_V - self.limiting_potential


@dataclass(frozen=True)
class FreeEnergyDiagram:
    """Free energies in eV of the intermediates at U = 0, relative to 2 H2O."""

    dG_OOH_eV: float
    dG_O_eV: float
    dG_OH_eV: float
    inferred: tuple[str, ...] = ()
    """Which of OOH, O and OH come from scaling and not from a computation."""

    @property
    def steps(self) -> OrrSteps:
        """Return the free energies of the four steps at U = 0."""
        levels = self.levels()
        return OrrSteps(*(levels[n + 1] - levels[n] for n in range(4)))

    @property
    def limiting_potential(self) -> float:
        """Return the highest potential in V at which every step runs downhill."""
        return self.steps.limiting_potential

    @property
    def overpotential(self) -> float:
        """Return 1.23 V minus the limiting potential, in V."""
        return self.steps.overpotential

    def levels(self, potential_V: float = 0.0) -> tuple[float, ...]:
        """Return the free energies in eV of `STATES` at a potential.

        A state with n electrons yet to come lies at ΔG - n·eU.
        """
        at_zero = (
            FOUR_ELECTRONS_EV,
            self.dG_OOH_eV,
            self.dG_O_eV,
            self.dG_OH_eV,
            0.0,
        )
        return tuple(
            level - n * potential_V
            for level, n in zip(at_zero, ELECTRONS_LEFT, strict=True)
        )


def free_energy(
    dE_eV: float,
    adsorbate: str,
    *,
    corrections: str = DEFAULT_CORRECTIONS,
    solvation: str = NO_SOLVATION,
) -> float | None:
    """Return ΔG in eV of an adsorbate from its adsorption energy against H2O and H2.

    None where the set of corrections does not hold the adsorbate.
    """
    correction = CORRECTIONS[corrections].free_minus_electronic.get(adsorbate)
    if correction is None:
        return None
    water = SOLVATIONS[solvation].stabilization.get(adsorbate, 0.0)
    return dE_eV + correction + water


def orr_diagram(
    free_energies: Mapping[str, float], *, scaling: str = DEFAULT_SCALING
) -> FreeEnergyDiagram:
    """Return the diagram of a surface from any of ΔG_O, ΔG_OH and ΔG_OOH in eV.

    What is missing comes from ΔG_OH by scaling; a missing ΔG_OH comes from ΔG_O, or
    else from ΔG_OOH.

    Raises:
        ConfigError: none of the three is given.
    """
    known = {
        name: np.asarray(free_energies[name], dtype=float)
        for name in INTERMEDIATES
        if name in free_energies
    }
    if not known:
        raise ConfigError("a free-energy diagram needs at least one of O, OH and OOH")
    dG_OOH, dG_O, dG_OH = complete_free_energies(known, scaling).tolist()
    inferred = tuple(name for name in INTERMEDIATES if name not in known)
    return FreeEnergyDiagram(dG_OOH, dG_O, dG_OH, inferred)


def limiting_potential(dG_O_eV: float, *, scaling: str = DEFAULT_SCALING) -> float:
    """Return U_L in V; for ``man-2011`` it is min(1.72 - ΔG_O/2, ΔG_O/2)."""
    return orr_diagram({"O": dG_O_eV}, scaling=scaling).limiting_potential


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
