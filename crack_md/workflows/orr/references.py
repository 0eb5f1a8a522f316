"""What an adsorption energy is measured against.

Atoms of an adsorbate are taken from gas molecules: H from H2, O from H2O and H2, C from
CO, H2O and H2, N from N2. These are the reactions of OC20, so that adsorption-energy
models trained on it are on this scale too. O* is then

    H2O + * → O* + H2        ΔE = E(O*) - E(*) - E(H2O) + E(H2)
"""

from collections import Counter
from collections.abc import Mapping
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
