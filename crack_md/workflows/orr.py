"""Oxygen reduction: named constants, free energies of its steps, potentials, volcano.

Energies of adsorption are measured against gas molecules: H from H2, O from H2O and H2,
C from CO, H2O and H2, N from N2. These are the reactions of OC20, so that
adsorption-energy models trained on it are on this scale too. O* is then

    H2O + * → O* + H2        ΔE = E(O*) - E(*) - E(H2O) + E(H2)

Correction sets turn adsorption energies into free energies at 298 K. Scaling sets infer
O*, OH* and OOH* from one another. None of them is better than 0.1 eV: results carry the
names of the sets, and the band that all of them span.

Computational hydrogen electrode, pH 0, relative to 2 H2O and H+ + e-:

    ΔG1 = ΔG_OOH - 4.92    ΔG2 = ΔG_O - ΔG_OOH    ΔG3 = ΔG_OH - ΔG_O    ΔG4 = -ΔG_OH

each + eU. The limiting potential is U_L = -max ΔG / e. Of O*, OH* and OOH* any may be
computed; `complete_free_energies` infers the others by linear scaling, and results say
which. Each step is then linear in what is known, and U_L is a concave, piecewise linear
function of it: over an interval of one ΔG its lowest value is at an end, its highest at
an end or at a corner inside.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from types import MappingProxyType

import numpy as np
from jaxtyping import Float
from numpy import ndarray

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


def limiting_potential_band(energies: Mapping[str, float]) -> tuple[float, float]:
    """Return the lowest and highest U_L in V over all sets of corrections and scaling.

    Of several computed intermediates each choice of them counts, the others inferred:
    how far computed energies are from scaling is a part of what is not known.

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
        for count in range(1, len(free) + 1):
            for names in combinations(free, count):
                chosen = {name: free[name] for name in names}
                diagram = orr_diagram(chosen, scaling=scaling)
                potentials.append(diagram.limiting_potential)
    return min(potentials), max(potentials)


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
