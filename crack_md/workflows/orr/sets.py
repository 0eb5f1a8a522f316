"""Named constants of oxygen reduction: references, corrections, water, scaling.

Energies of adsorption are measured against gas molecules: H from H2, O from H2O and H2,
C from CO, H2O and H2, N from N2. These are the reactions of OC20, so that
adsorption-energy models trained on it are on this scale too. O* is then

    H2O + * → O* + H2        ΔE = E(O*) - E(*) - E(H2O) + E(H2)

Correction sets turn adsorption energies into free energies at 298 K, solvation sets add
what water does to OH* and OOH*, and scaling sets infer O*, OH* and OOH* from one
another. None of them is better than 0.1 eV: results carry the names of the sets.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from crack_md.errors import ConfigError

ATOMS_FROM: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "H": {"H2": 0.5},
        "O": {"H2O": 1.0, "H2": -1.0},
        "C": {"CO": 1.0, "H2O": -1.0, "H2": 1.0},
        "N": {"N2": 0.5},
    }
)
"""The gas molecules that one atom is made of."""


@dataclass(frozen=True)
class EnergyReference:
    """A named scale of adsorption energies."""

    name: str
    gas_energies: Mapping[str, float] | None
    """eV per molecule; None takes those of the model at hand."""
    from_half_o2: bool
    """Whether O is counted from ½O2 instead of H2O - H2."""
    source: str

    @property
    def column(self) -> str:
        """Return what columns on this scale are called: ``dE_O_<column>_eV``."""
        return "halfO2" if self.from_half_o2 else "H2O_H2"


REFERENCES: Mapping[str, EnergyReference] = MappingProxyType(
    {
        "H2O-H2": EnergyReference(
            "H2O-H2", None, False, "gas molecules by the same model; no O2 involved"
        ),
        "half-O2": EnergyReference(
            "half-O2",
            None,
            True,
            "as H2O-H2, with the electronic energy of H2 + ½O2 → H2O that agrees with "
            "4.92 eV for 2 H2 + O2 → 2 H2O(l): -2.76 eV",
        ),
        "OC20": EnergyReference(
            "OC20",
            # H -3.477, O -7.204, C -7.282, N -8.083 eV per atom
            MappingProxyType(
                {"H2": -6.954, "H2O": -14.158, "CO": -14.486, "N2": -16.166}
            ),
            False,
            "gas energies of OC20 (RPBE, doi:10.1021/acscatal.0c04525); only for "
            "models of total energies at that level",
        ),
    }
)
DEFAULT_REFERENCE = "H2O-H2"


def reference_named(name: str) -> EnergyReference:
    """Return a known reference.

    Raises:
        ConfigError: the reference is not known.
    """
    if name not in REFERENCES:
        known = ", ".join(REFERENCES)
        raise ConfigError(f"unknown reference '{name}'; expected one of: {known}")
    return REFERENCES[name]


def gas_molecules(composition: Mapping[str, int]) -> dict[str, float]:
    """Return how many of each gas molecule an adsorbate is made of.

    Raises:
        ConfigError: it holds an element other than H, C, N and O.
    """
    foreign = sorted(set(composition) - set(ATOMS_FROM))
    if foreign:
        raise ConfigError(
            f"no gas-phase reference for {', '.join(foreign)}; adsorbates may hold "
            f"{', '.join(sorted(ATOMS_FROM))}"
        )
    total: Counter[str] = Counter()
    for symbol, count in composition.items():
        for gas, share in ATOMS_FROM[symbol].items():
            total[gas] += count * share  # type: ignore[assignment]
    return {gas: float(count) for gas, count in total.items() if count}


def gas_energy(
    name: str, composition: Mapping[str, int], gas_energies: Mapping[str, float]
) -> float:
    """Return the energy in eV that an adsorbate has as gas molecules.

    Raises:
        ConfigError: the energy of a molecule is missing.
    """
    needed = gas_molecules(composition)
    missing = [gas for gas in needed if gas not in gas_energies]
    if missing:
        raise ConfigError(
            f"adsorption energies of {name} need the energies of "
            f"{' and '.join(needed)} by the same model; missing: "
            f"{', '.join(missing)}; give them in eV, for "
            "instance --gas-reference H2O=-12.81,H2=-6.98"
        )
    return sum(count * gas_energies[gas] for gas, count in needed.items())


FOUR_ELECTRONS_EV = 4.92
"""Free energy of O2 + 4 (H+ + e-) above 2 H2O at U = 0."""


@dataclass(frozen=True)
class CorrectionSet:
    """Zero-point, heat and entropy terms: ΔG - ΔE in eV per adsorbate at 298 K."""

    name: str
    free_minus_electronic: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class SolvationSet:
    """What water around an adsorbate adds to its ΔG, in eV."""

    name: str
    stabilization: Mapping[str, float]
    """Negative: hydrogen bonds. What is not named is left as it is."""
    source: str
    pt111_V: float | None = None
    """Limiting potential of Pt(111) as published with these constants."""


@dataclass(frozen=True)
class ScalingSet:
    """ΔG_O = o_slope·ΔG_OH + o_offset and ΔG_OOH = ooh_slope·ΔG_OH + ooh_offset."""

    name: str
    o_slope: float
    o_offset: float
    ooh_slope: float
    ooh_offset: float
    has_water: bool
    """Whether the OH* and OOH* that it was fitted to are stabilized by water."""
    source: str
    pt111_V: float | None = None
    """Limiting potential of Pt(111) in the same work."""


SCALING_ERROR_EV = 0.2
"""Scatter of OOH* around OH* + 3.2 eV (one standard deviation, Man 2011); taken for O*
and OH* as well."""


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
            "man-2011",
            2.0,
            0.0,
            1.0,
            3.2,
            False,
            "doi:10.1002/cctc.201000397",
        ),
        "hansen-2014": ScalingSet(
            "hansen-2014",
            2.0,
            0.20,
            1.0,
            3.16,
            True,
            "through Pt(111) with OH* 0.75, O* 1.70, OOH* 3.91; doi:10.1021/jp4100608",
            0.75,
        ),
    }
)
SOLVATIONS: Mapping[str, SolvationSet] = MappingProxyType(
    {
        "none": SolvationSet("none", MappingProxyType({}), "no water"),
        "calle-vallejo-2015": SolvationSet(
            "calle-vallejo-2015",
            MappingProxyType({"OH": -0.575, "OOH": -0.480}),
            "OH* -0.575, OOH* -0.480 on Pt, doi:10.1126/science.aab3501; its fits give "
            "ΔG(OH*) 0.72 eV on terrace atoms of Pt(111)",
            0.72,
        ),
        "peterson-2010": SolvationSet(
            "peterson-2010",
            MappingProxyType({"OH": -0.50, "OOH": -0.25}),
            "hydroxyl on the surface -0.50, hydroxyl of an adsorbed molecule -0.25 "
            "(taken for OOH*), doi:10.1039/c0ee00071j",
        ),
    }
)
DEFAULT_CORRECTIONS = "norskov-2004"
DEFAULT_SCALING = "man-2011"
DEFAULT_SOLVATION = "calle-vallejo-2015"
NO_SOLVATION = "none"
SOLVATED = ("OH", "OOH")
"""Intermediates that water stabilizes; O* has no hydrogen to give, and is left alone
by all sets."""


def has_water(adsorbates: Collection[str], solvation: str) -> bool | None:
    """Return whether computed OH* or OOH* have water; None if neither is computed."""
    if not set(SOLVATED) & set(adsorbates):
        return None
    return solvation != NO_SOLVATION


def scalings_for(adsorbates: Collection[str], solvation: str) -> tuple[str, ...]:
    """Return the scaling sets that go with what is computed, the default one first.

    A line through water-stabilized OH* says nothing of OH* without water, which lies
    half an electron volt higher: where OH* or OOH* is computed, both have water or
    neither has.
    """
    water = has_water(adsorbates, solvation)
    names = [DEFAULT_SCALING, *(name for name in SCALINGS if name != DEFAULT_SCALING)]
    return tuple(n for n in names if water in (None, SCALINGS[n].has_water))


def require_same_water(
    adsorbates: Collection[str], *, scaling: str, solvation: str
) -> None:
    """Refuse computed OH* with water and scaling without, and the other way round.

    Raises:
        ConfigError: they do not go together.
    """
    fitting = scalings_for(adsorbates, solvation)
    if scaling in fitting:
        return
    kinds = ("without water", "stabilized by water")
    scaled = SCALINGS[scaling].has_water
    names = ", ".join(n for n in SOLVATIONS if (n != NO_SOLVATION) == scaled)
    raise ConfigError(
        f"scaling '{scaling}' is for OH* {kinds[scaled]}, and OH* as computed here is "
        f"{kinds[not scaled]} (solvation '{solvation}'); take --scaling "
        f"{' or '.join(fitting)}, or --solvation {names}"
    )


WATER_FORMATION_EV = round(
    -FOUR_ELECTRONS_EV / 2
    - (NORSKOV_GAS["H2O"] - NORSKOV_GAS["H2"] - NORSKOV_HALF_O2_EV),
    6,
)
"""Electronic energy of H2 + ½O2 → H2O that agrees with 4.92 eV: no DFT O2 needed."""
