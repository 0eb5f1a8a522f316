"""The oxygen reduction reaction: free energies of its steps, limits, diagrams.

Computational hydrogen electrode, pH 0, relative to 2 H2O and H+ + e-:

    ΔG1 = ΔG_OOH - 4.92    ΔG2 = ΔG_O - ΔG_OOH    ΔG3 = ΔG_OH - ΔG_O    ΔG4 = -ΔG_OH

each + eU. The limiting potential is U_L = -max ΔG / e. Of O*, OH* and OOH* any may be
computed; the others are inferred by linear scaling, and results say which.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from crack_md.errors import ConfigError
from crack_md.workflows.orr.constants import (
    CORRECTIONS,
    DEFAULT_CORRECTIONS,
    DEFAULT_SCALING,
    FOUR_ELECTRONS_EV,
    SCALINGS,
)

EQUILIBRIUM_V = 1.23
INTERMEDIATES = ("OOH", "O", "OH")
STATES = ("O2", "OOH*", "O*", "OH*", "H2O")
"""The five levels of a diagram, from left to right."""
ELECTRONS_LEFT = (4, 3, 2, 1, 0)


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
    dE_eV: float, adsorbate: str, *, corrections: str = DEFAULT_CORRECTIONS
) -> float | None:
    """Return ΔG in eV of an adsorbate from its adsorption energy against H2O and H2.

    None where the set of corrections does not hold the adsorbate.
    """
    correction = CORRECTIONS[corrections].free_minus_electronic.get(adsorbate)
    return None if correction is None else dE_eV + correction


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
        name: free_energies[name] for name in INTERMEDIATES if name in free_energies
    }
    if not known:
        raise ConfigError("a free-energy diagram needs at least one of O, OH and OOH")
    lines = SCALINGS[scaling]
    if "OH" in known:
        dG_OH = known["OH"]
    elif "O" in known:
        dG_OH = (known["O"] - lines.o_offset) / lines.o_slope
    else:
        dG_OH = (known["OOH"] - lines.ooh_offset) / lines.ooh_slope
    return FreeEnergyDiagram(
        dG_OOH_eV=known.get("OOH", lines.ooh_slope * dG_OH + lines.ooh_offset),
        dG_O_eV=known.get("O", lines.o_slope * dG_OH + lines.o_offset),
        dG_OH_eV=dG_OH,
        inferred=tuple(name for name in INTERMEDIATES if name not in known),
    )


def steps_from_oxygen(dG_O_eV: float, *, scaling: str = DEFAULT_SCALING) -> OrrSteps:
    """Return the four steps with OH* and OOH* inferred from O* by linear scaling."""
    return orr_diagram({"O": dG_O_eV}, scaling=scaling).steps


def limiting_potential(dG_O_eV: float, *, scaling: str = DEFAULT_SCALING) -> float:
    """Return U_L in V; for ``man-2011`` it is min(1.72 - ΔG_O/2, ΔG_O/2)."""
    return steps_from_oxygen(dG_O_eV, scaling=scaling).limiting_potential


def limiting_potential_band(energies: Mapping[str, float]) -> tuple[float, float]:
    """Return the lowest and highest U_L in V over all sets of corrections and scaling.

    Args:
        energies: ΔE in eV against H2O and H2 of any of O, OH and OOH.
    """
    potentials = []
    for corrections, scaling in product(CORRECTIONS, SCALINGS):
        free = {
            name: value
            for name, dE in energies.items()
            if (value := free_energy(dE, name, corrections=corrections)) is not None
        }
        potentials.append(orr_diagram(free, scaling=scaling).limiting_potential)
    return min(potentials), max(potentials)
