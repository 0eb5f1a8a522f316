"""The oxygen reduction reaction from O* alone: free energies, limits, volcano.

Computational hydrogen electrode, pH 0, relative to H2O and H+ + e-:

    ΔG1 = ΔG_OOH - 4.92    ΔG2 = ΔG_O - ΔG_OOH    ΔG3 = ΔG_OH - ΔG_O    ΔG4 = -ΔG_OH

each + eU. The limiting potential is U_L = -max ΔG / e. OH* and OOH* are inferred from
O* by linear scaling, so results name the scaling and the corrections they rest on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

EQUILIBRIUM_V = 1.23
FOUR_ELECTRONS_EV = 4.92


@dataclass(frozen=True)
class CorrectionSet:
    """Zero-point, heat and entropy terms: ΔG - ΔE in eV per adsorbate at 298 K."""

    name: str
    free_minus_electronic: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class ScalingSet:
    """ΔG_O = o_slope·ΔG_OH + o_offset and ΔG_OOH = ooh_slope·ΔG_OH + ooh_offset."""

    name: str
    o_slope: float
    o_offset: float
    ooh_slope: float
    ooh_offset: float
    source: str


@dataclass(frozen=True)
class OrrSteps:
    """Free energies of the four reduction steps in eV at U = 0."""

    step_1: float
    step_2: float
    step_3: float
    step_4: float

    @property
    def limiting_potential(self) -> float:
        """Return the highest potential in V at which every step runs downhill."""
        return -max(self.step_1, self.step_2, self.step_3, self.step_4)

    @property
    def overpotential(self) -> float:
        """Return 1.23 V minus the limiting potential, in V."""
        return EQUILIBRIUM_V - self.limiting_potential


CORRECTIONS: Mapping[str, CorrectionSet] = MappingProxyType(
    {
        "norskov-2004": CorrectionSet(
            "norskov-2004",
            MappingProxyType({"O": 0.04}),
            "ZPE 0.56 (H2O), 0.27 (H2), 0.07 (O*); TS 0.67 (H2O, 0.035 bar), 0.41 "
            "(H2); doi:10.1021/jp047349j",
        )
    }
)
SCALINGS: Mapping[str, ScalingSet] = MappingProxyType(
    {
        "man-2011": ScalingSet(
            "man-2011", 2.0, 0.0, 1.0, 3.2, "doi:10.1002/cctc.201000397"
        )
    }
)
DEFAULT_CORRECTIONS = "norskov-2004"
DEFAULT_SCALING = "man-2011"


def free_energy(
    dE_eV: float, adsorbate: str, *, corrections: str = DEFAULT_CORRECTIONS
) -> float:
    """Return ΔG in eV of an adsorbate from its adsorption energy against H2O and H2."""
    return dE_eV + CORRECTIONS[corrections].free_minus_electronic[adsorbate]


def steps_from_oxygen(dG_O_eV: float, *, scaling: str = DEFAULT_SCALING) -> OrrSteps:
    """Return the four steps with OH* and OOH* inferred from O* by linear scaling."""
    lines = SCALINGS[scaling]
    dG_OH = (dG_O_eV - lines.o_offset) / lines.o_slope
    dG_OOH = lines.ooh_slope * dG_OH + lines.ooh_offset
    return OrrSteps(
        step_1=dG_OOH - FOUR_ELECTRONS_EV,
        step_2=dG_O_eV - dG_OOH,
        step_3=dG_OH - dG_O_eV,
        step_4=-dG_OH,
    )


def limiting_potential(dG_O_eV: float, *, scaling: str = DEFAULT_SCALING) -> float:
    """Return U_L in V; for ``man-2011`` it is min(1.72 - ΔG_O/2, ΔG_O/2)."""
    return steps_from_oxygen(dG_O_eV, scaling=scaling).limiting_potential
