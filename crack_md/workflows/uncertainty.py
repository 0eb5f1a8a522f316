r"""Adsorption energies with honest errors, partly common to all slabs.

    E_k = center_k + (Σ_c shared_kc z_c + independent_k e_k) / √(χ²_ν / ν)

with z and e standard normal: each E_k by itself is Student-t distributed with ν degrees
of freedom around its center, Gaussian for ν = ∞. What is shared (an offset of the
functional, a slope fitted to few points) moves slabs together and leaves most ranks
alone; what is independent does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import stdtrit

DEFAULT_LEVEL = 0.95
SPREAD_FLOOR_EV = 0.01
"""Members of a committee can agree by chance; relaxations to 0.03 eV/Å cannot."""


@dataclass(frozen=True, eq=False)
class Estimates:
    """Adsorption energies in eV, one per slab, as a joint distribution."""

    center_eV: Float[ndarray, " slab"]
    shared_eV: Float[ndarray, "slab cause"]
    independent_eV: Float[ndarray, " slab"]
    degrees_of_freedom: float = np.inf

    @classmethod
    def exact(cls, center_eV: Float[ndarray, " slab"]) -> "Estimates":
        """Return energies without an error."""
        center = np.asarray(center_eV, dtype=float)
        return cls(center, np.zeros((len(center), 0)), np.zeros(len(center)))

    @property
    def scale(self) -> Float[ndarray, " slab"]:
        """Return the standard error of each energy in eV (the scale of its t)."""
        shared = (self.shared_eV**2).sum(axis=-1)
        return np.sqrt(shared + self.independent_eV**2)

    def interval(
        self, level: float = DEFAULT_LEVEL
    ) -> tuple[Float[ndarray, " slab"], Float[ndarray, " slab"]]:
        """Return the ends in eV of the central intervals of this probability."""
        half = student_quantile(level, self.degrees_of_freedom) * self.scale
        return self.center_eV - half, self.center_eV + half

    def sample(self, n: int, *, seed: int) -> Float[ndarray, "draw slab"]:
        """Return joint draws in eV; the same seed gives the same draws."""
        random = np.random.default_rng(seed)
        n_slabs, n_causes = self.shared_eV.shape
        shared = random.standard_normal((n, n_causes)) @ self.shared_eV.T
        noise = shared + random.standard_normal((n, n_slabs)) * self.independent_eV
        if np.isfinite(self.degrees_of_freedom):
            freedom = self.degrees_of_freedom
            noise /= np.sqrt(random.chisquare(freedom, n) / freedom)[:, None]
        return self.center_eV + noise

    def with_known(self, known: Mapping[int, float]) -> "Estimates":
        """Return the estimates with some energies replaced by known ones."""
        center, shared = self.center_eV.copy(), self.shared_eV.copy()
        independent = self.independent_eV.copy()
        for index, value in known.items():
            center[index], shared[index], independent[index] = value, 0.0, 0.0
        return replace(
            self, center_eV=center, shared_eV=shared, independent_eV=independent
        )


class ErrorModel(Protocol):
    """What turns predicted energies into energies with errors."""

    def apply(
        self, predicted: Estimates, spread_eV: Float[ndarray, " slab"] | None = None
    ) -> Estimates:
        """Return what DFT would give, as far as can be said."""


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

    def apply(
        self, predicted: Estimates, spread_eV: Float[ndarray, " slab"] | None = None
    ) -> Estimates:
        """Return the predictions with these errors on top of theirs."""
        common = np.full((len(predicted.center_eV), 1), self.shared_eV)
        spread = 0.0 if spread_eV is None else spread_eV
        squares = predicted.independent_eV**2 + self.independent_eV**2 + spread**2
        return Estimates(
            predicted.center_eV,
            np.hstack([predicted.shared_eV, common]),
            np.sqrt(squares),
            predicted.degrees_of_freedom,
        )


def student_quantile(level: float, degrees_of_freedom: float) -> float:
    """Return how many scales on either side hold this share of a t distribution."""
    return float(stdtrit(degrees_of_freedom, 0.5 + level / 2))


def committee_spread(
    member_energies_eV: Float[ndarray, "member slab"],
) -> Float[ndarray, " slab"]:
    """Return the standard deviation over at least two members in eV, with a floor."""
    spread = np.std(member_energies_eV, axis=0, ddof=1)
    return np.maximum(spread, SPREAD_FLOOR_EV)
