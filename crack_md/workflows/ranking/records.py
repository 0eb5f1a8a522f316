"""Records of a ranking. Energies are eV, potentials V."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from crack_md.workflows.ranking.calibration import Calibration, Kind
from crack_md.workflows.ranking.dft_values import ReferenceValue
from crack_md.workflows.ranking.errors import DEFAULT_LEVEL, AssumedErrors
from crack_md.workflows.ranking.statistics import DRAWS


@dataclass(frozen=True)
class RankSettings:
    """What decides a ranking, besides energies."""

    top: int = 10
    level: float = DEFAULT_LEVEL
    """Probability of the intervals of energies and potentials."""
    seed: int = 0
    draws: int = DRAWS
    correction: Kind | None = None
    """None: an offset for fewer than four DFT values, a line from four on."""
    assumed: AssumedErrors = field(default_factory=AssumedErrors)


@dataclass(frozen=True)
class RankedEnergy:
    """An adsorbate on its best site: corrected energies with intervals."""

    adsorbate: str
    site: str
    source: str
    """``model``, ``DFT``, or the name of the model that re-scored it."""
    screened_dE_eV: float
    dE_eV: float
    dE_low_eV: float
    dE_high_eV: float
    dG_eV: float
    dG_low_eV: float
    dG_high_eV: float


@dataclass(frozen=True)
class RankedSlab:
    """One slab with its energies, its limiting potential and its chances."""

    rank: int
    screen_rank: int
    slab: str
    formula: str
    energies: tuple[RankedEnergy, ...]
    """Of the intermediates of oxygen reduction that were screened, at least one."""
    U_L_V: float
    U_L_low_V: float
    U_L_high_V: float
    p_best: float
    p_top: float
    rank_low: int
    rank_high: int


@dataclass(frozen=True)
class Ranking:
    """All ranked slabs, best first, and where the errors come from."""

    slabs: tuple[RankedSlab, ...]
    settings: RankSettings
    adsorbates: tuple[str, ...]
    """The intermediates that limiting potentials rest on."""
    rank_level: float
    shortlist: tuple[str, ...]
    """Slabs to look at to have all of the best ``top`` with that probability."""
    corrections: Mapping[str, Calibration] = field(default_factory=dict)
    """By adsorbate, from DFT values."""
    between_models: Mapping[str, Calibration] = field(default_factory=dict)
    """By adsorbate, from the model of the screening to the one that re-scored."""
    reference_values: tuple[ReferenceValue, ...] = ()
    has_committee: bool = False
