"""Named constants of the oxygen reduction reaction, each with its source.

Correction sets turn adsorption energies against H2O and H2 into free energies at 298 K.
Scaling sets infer O*, OH* and OOH* from one another. None of them is better than
0.1 eV: results carry the names of the sets, and the band that all of them span.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from crack_md.workflows.orr.references import gas_molecules

FOUR_ELECTRONS_EV = 4.92
"""Free energy of O2 + 4 (H+ + e-) above 2 H2O at U = 0."""


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


NORSKOV_GAS = MappingProxyType({"H2O": 0.56 - 0.67, "H2": 0.27 - 0.41})
"""ZPE - TS in eV; water at 0.035 bar, where vapor and liquid are in equilibrium."""
NORSKOV_HALF_O2_EV = 0.05 - 0.32
NORSKOV_ADSORBED = MappingProxyType(
    {
        "O": ({"O": 1}, 0.07),
        "OH": ({"O": 1, "H": 1}, 0.30),
        "OOH": ({"O": 2, "H": 1}, 0.40),
    }
)
"""Composition and ZPE in eV; the entropy of adsorbates is neglected."""


def _against_gas(
    composition: Mapping[str, int], adsorbed: float, gas: Mapping[str, float]
) -> float:
    """Return ΔG - ΔE in eV: the terms of an adsorbate minus those of its gases."""
    used = gas_molecules(composition)
    return round(adsorbed - sum(count * gas[name] for name, count in used.items()), 6)


CORRECTIONS: Mapping[str, CorrectionSet] = MappingProxyType(
    {
        "norskov-2004": CorrectionSet(
            "norskov-2004",
            MappingProxyType(
                {
                    name: _against_gas(composition, zero_point, NORSKOV_GAS)
                    for name, (composition, zero_point) in NORSKOV_ADSORBED.items()
                }
            ),
            "ZPE 0.56 (H2O), 0.27 (H2), 0.07 (O*), 0.30 (OH*); TS 0.67 (H2O, 0.035 "
            "bar), 0.41 (H2); doi:10.1021/jp047349j; ZPE 0.40 of OOH* is that of later "
            "work",
        ),
        "man-2011": CorrectionSet(
            "man-2011",
            MappingProxyType({"O": 0.05, "OH": 0.35, "OOH": 0.40}),
            "rounded constants 0.05, 0.35, 0.40 for O*, OH*, OOH* as used with "
            "doi:10.1002/cctc.201000397",
        ),
    }
)
SCALINGS: Mapping[str, ScalingSet] = MappingProxyType(
    {
        "man-2011": ScalingSet(
            "man-2011", 2.0, 0.0, 1.0, 3.2, "doi:10.1002/cctc.201000397"
        ),
        "hansen-2014": ScalingSet(
            "hansen-2014",
            2.0,
            0.20,
            1.0,
            3.16,
            "through Pt(111) with OH* 0.75, O* 1.70, OOH* 3.91; doi:10.1021/jp4100608",
        ),
    }
)
DEFAULT_CORRECTIONS = "norskov-2004"
DEFAULT_SCALING = "man-2011"

WATER_FORMATION_EV = round(
    -FOUR_ELECTRONS_EV / 2
    - (NORSKOV_GAS["H2O"] - NORSKOV_GAS["H2"] - NORSKOV_HALF_O2_EV),
    6,
)
"""Electronic energy of H2 + ½O2 → H2O that agrees with 4.92 eV: no DFT O2 needed."""
