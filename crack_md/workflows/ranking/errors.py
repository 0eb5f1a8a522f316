"""Errors that slabs partly share, as joint distributions; probabilities of ranks.

    E_k = center_k + Σ_parts (Σ_c shared_kc z_c + independent_k e_k) / √(χ²_ν / ν)

with z and e standard normal: each part by itself is Student-t distributed with its ν
degrees of freedom, Gaussian for ν = ∞. What is shared (an offset of the functional, a
slope fitted to few points) moves slabs together and leaves most ranks alone; what is
independent does not.

Energies are drawn jointly many times and ranked each time; ranks are counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import stdtrit

DEFAULT_LEVEL = 0.95
SPREAD_FLOOR_EV = 0.01
"""Members of a committee can agree by chance; relaxations to 0.03 eV/Å cannot."""

DFT_ERROR_EV = 0.03
"""Cutoffs, k-points and slab thickness leave so much in one DFT adsorption energy."""


@dataclass(frozen=True, eq=False)
class ErrorPart:
    """Errors in eV with one cause for their size: one estimate of a scatter."""

    shared_eV: Float[ndarray, "slab cause"]
    independent_eV: Float[ndarray, " slab"]
    degrees_of_freedom: float = np.inf

    @property
    def scale(self) -> Float[ndarray, " slab"]:
        """Return the scale in eV of each slab's t distribution."""
        return np.sqrt((self.shared_eV**2).sum(axis=-1) + self.independent_eV**2)

    def times(self, factor: float | Float[ndarray, " slab"]) -> "ErrorPart":
        """Return the errors of energies that are multiplied by a factor."""
        factors = np.broadcast_to(factor, self.independent_eV.shape)
        return replace(
            self,
            shared_eV=factors[:, None] * self.shared_eV,
            independent_eV=np.abs(factors) * self.independent_eV,
        )

    def sample(
        self, n: int, random: np.random.Generator
    ) -> Float[ndarray, "draw slab"]:
        """Return joint draws in eV around zero."""
        n_slabs, n_causes = self.shared_eV.shape
        shared = random.standard_normal((n, n_causes)) @ self.shared_eV.T
        noise = shared + random.standard_normal((n, n_slabs)) * self.independent_eV
        if np.isfinite(self.degrees_of_freedom):
            freedom = self.degrees_of_freedom
            noise /= np.sqrt(random.chisquare(freedom, n) / freedom)[:, None]
        return noise


@dataclass(frozen=True, eq=False)
class Estimates:
    """Adsorption energies in eV, one per slab, as a joint distribution."""

    center_eV: Float[ndarray, " slab"]
    parts: tuple[ErrorPart, ...] = ()
    """Independent of each other."""

    @property
    def scale(self) -> Float[ndarray, " slab"]:
        """Return the standard error of each energy in eV."""
        squares = [part.scale**2 for part in self.parts]
        return np.sqrt(np.sum(squares, axis=0) + np.zeros_like(self.center_eV))

    @property
    def degrees_of_freedom(self) -> Float[ndarray, " slab"]:
        """Return those of each energy; for several parts by Welch and Satterthwaite."""
        weights = [p.scale**4 / p.degrees_of_freedom for p in self.parts]
        below = np.sum(weights, axis=0) + np.zeros_like(self.center_eV)
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = self.scale**4 / below
        return np.where(below > 0, freedom, np.inf)

    def interval(
        self, level: float = DEFAULT_LEVEL
    ) -> tuple[Float[ndarray, " slab"], Float[ndarray, " slab"]]:
        """Return the ends in eV of the central intervals of this probability."""
        half = student_quantile(level, self.degrees_of_freedom) * self.scale
        return self.center_eV - half, self.center_eV + half

    def sample(
        self, n: int, *, seed: int | Sequence[int]
    ) -> Float[ndarray, "draw slab"]:
        """Return joint draws in eV; the same seed gives the same draws."""
        random = np.random.default_rng(seed)
        draws = np.tile(self.center_eV, (n, 1))
        for part in self.parts:
            draws += part.sample(n, random)
        return draws

    def with_known(
        self, known: Mapping[int, float], *, error_eV: float = 0.0
    ) -> "Estimates":
        """Return the estimates with some energies replaced by known ones.

        Args:
            known: eV, by the place of the slab.
            error_eV: standard error of each of these.
        """
        center = self.center_eV.copy()
        center[list(known)] = list(known.values())
        errs = np.ones(len(center))
        errs[list(known)] = 0.0
        parts = tuple(part.times(errs) for part in self.parts)
        if known and error_eV:
            own = ErrorPart(np.zeros((len(center), 1)), error_eV * (1 - errs))
            parts = (*parts, own)
        return Estimates(center, parts)


@dataclass(frozen=True)
class AssumedErrors:
    """Errors taken for granted where no reference values are at hand.

    A committee trained on one teacher does not know what its teacher gets wrong: its
    spread is added in quadrature, so that it widens intervals and never narrows them.
    """

    shared_eV: float = 0.10
    independent_eV: float = 0.12
    source: str = (
        "shared: published O*/Pt(111) lie between 1.42 and 1.62 eV; independent: the "
        "packaged student against GPAW-RPBE on alloys, relative to Pt(111)"
    )
    by_slab_eV: Mapping[str, float] = field(default_factory=dict)
    """Independent errors of single slabs, in place of that of all."""

    @property
    def independent_text(self) -> str:
        """Return the independent error in eV, or its range, in words."""
        low, high = self.independent_eV, self.independent_eV
        if self.by_slab_eV:
            low, high = min(self.by_slab_eV.values()), max(self.by_slab_eV.values())
        both = f"{low:.2f}", f"{high:.2f}"
        return f"{' to '.join(dict.fromkeys(both))} eV"

    def apply(
        self,
        predicted: Estimates,
        spread_eV: Float[ndarray, " slab"] | None = None,
        *,
        slabs: Sequence[str] = (),
    ) -> Estimates:
        """Return the predictions with these errors on top of theirs.

        Args:
            predicted: by the model.
            spread_eV: of a committee.
            slabs: their names, for errors of single ones.
        """
        n = len(predicted.center_eV)
        spread = np.zeros(n) if spread_eV is None else spread_eV
        own = [self.by_slab_eV.get(slab, self.independent_eV) for slab in slabs]
        independent = np.array(own or self.independent_eV)
        part = ErrorPart(np.full((n, 1), self.shared_eV), np.hypot(independent, spread))
        return Estimates(predicted.center_eV, (*predicted.parts, part))


def from_labels(spreads_eV: Mapping[str, float]) -> AssumedErrors:
    """Return the assumed errors with the spread of the labels of each slab.

    Args:
        spreads_eV: by slab; the usual errors where there are none.
    """
    usual = AssumedErrors()
    if not spreads_eV:
        return usual
    shared = usual.source.partition(";")[0]
    source = f"{shared}; independent: the spread of the labels of the slab's metals"
    return replace(usual, by_slab_eV=dict(spreads_eV), source=source)


def student_quantile(
    level: float, degrees_of_freedom: Float[ndarray, "*shape"] | float
) -> Float[ndarray, "*shape"]:
    """Return how many scales on either side hold this share of a t distribution."""
    return np.asarray(stdtrit(degrees_of_freedom, 0.5 + level / 2))


def percent(probability: float) -> str:
    """Return a probability as people write it: 95%, 99.9%."""
    return f"{100 * probability:.4g}%"


def committee_spread(
    member_energies_eV: Float[ndarray, "member slab"],
) -> Float[ndarray, " slab"]:
    """Return the standard deviation over at least two members in eV, with a floor."""
    spread = np.std(member_energies_eV, axis=0, ddof=1)
    return np.maximum(spread, SPREAD_FLOOR_EV)


RANK_LEVEL = 0.90
DRAWS = 4000
"""Enough for a standard error of 0.008 on a probability."""


@dataclass(frozen=True, eq=False)
class RankStatistics:
    """What many draws say about the order of slabs."""

    p_best: Float[ndarray, " slab"]
    p_top: Float[ndarray, " slab"]
    """Probability of being among the best ``top``."""
    low: Int[ndarray, " slab"]
    """Best rank that is not improbable; 1 is first."""
    high: Int[ndarray, " slab"]
    top: int
    level: float
    shortlist: tuple[int, ...]
    """Slabs to look at to have all of the best ``top`` with probability ``level``."""


def rank_statistics(
    potentials: Float[ndarray, "draw slab"], *, top: int, level: float = RANK_LEVEL
) -> RankStatistics:
    """Return rank probabilities, the highest value of a draw being rank 1.

    Args:
        potentials: joint draws of what ranks the slabs.
        top: how many count as the best.
        level: probability of the intervals of ranks and of the shortlist.
    """
    n_slabs = potentials.shape[1]
    top = min(top, n_slabs)
    order = np.argsort(-potentials, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, n_slabs + 1)[None, :], axis=1)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(ranks, tails, axis=0, method="inverted_cdf")
    p_top = (ranks <= top).mean(axis=0)
    return RankStatistics(
        p_best=(ranks == 1).mean(axis=0),
        p_top=p_top,
        low=low.astype(int),
        high=high.astype(int),
        top=top,
        level=level,
        shortlist=_shortlist(order[:, :top], p_top, level),
    )


def _shortlist(
    best: Int[ndarray, "draw place"], p_top: Float[ndarray, " slab"], level: float
) -> tuple[int, ...]:
    """Return the fewest slabs, likeliest first, that hold all of the best.

    In each draw the list must reach to the least likely of the best.
    """
    likeliest = np.argsort(-p_top, kind="stable")
    position = np.empty_like(likeliest)
    position[likeliest] = np.arange(1, len(likeliest) + 1)
    reach = position[best].max(axis=1)
    length = int(np.quantile(reach, level, method="inverted_cdf"))
    return tuple(int(index) for index in likeliest[:length])
