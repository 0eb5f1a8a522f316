"""A linear correction of the model from a few DFT values, with prediction errors.

    offset   E = x + a            fewer than four values, or all close together
    line     E = c + b (x - x̄)    four values or more

by least squares, weighted by 1/spread² where a committee gives a spread. The error of a
new prediction holds the scatter and the uncertainty of a, c and b,

    s² (v² + 1/W + (x - x̄)²/S),    W = Σ w,  S = Σ w (x - x̄)²,  s² = Σ w r² / (n - p)

with v the spread of the new slab (1 without a committee), and is Student-t distributed
with n - p degrees of freedom.
"""

import difflib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from crack_md.errors import DataError
from crack_md.workflows.ranking.errors import (
    DEFAULT_LEVEL,
    SPREAD_FLOOR_EV,
    AssumedErrors,
    ErrorPart,
    Estimates,
    student_quantile,
)
from crack_md.workflows.relax.relax import is_settled
from crack_md.workflows.screening.reader import (
    Row,
    SavedScreening,
    energy_column,
    number,
    read_numbered_rows,
)

log = logging.getLogger(__name__)
Kind = Literal["none", "offset", "line"]
LINE_FROM = 4
NARROW_EV = 0.1
"""A slope from energies closer together than this would be noise."""


@dataclass(frozen=True)
class LeaveOneOut:
    """Each reference value predicted from the others."""

    rmse_eV: float
    n_inside: int | None
    """How many lie in the interval that the others give; None for too few."""


@dataclass(frozen=True)
class Calibration:
    """A linear correction and its errors."""

    kind: Kind
    n: int
    pivot_eV: float
    """x̄, the weighted mean of the predictions."""
    value_eV: float
    """The corrected energy there."""
    slope: float
    residual: float
    """s: in eV, or a factor on the spread of a committee."""
    value_error_eV: float
    slope_error: float
    degrees_of_freedom: float
    rmse_before_eV: float
    left_out: LeaveOneOut | None
    """None where one value less leaves nothing to fit."""

    @property
    def offset(self) -> float:
        """Return a in E = a + b·x, in eV."""
        return self.value_eV - self.slope * self.pivot_eV

    def apply(
        self, predicted: Estimates, spread_eV: Float[ndarray, " slab"] | None = None
    ) -> Estimates:
        """Return corrected energies; errors of the predictions are carried along."""
        away = predicted.center_eV - self.pivot_eV
        spread = np.ones_like(away) if spread_eV is None else _apply_floor(spread_eV)
        shared = [np.full_like(away, self.value_error_eV), self.slope_error * away]
        # a few values can lie on a line by chance
        own = np.maximum(self.residual * spread, SPREAD_FLOOR_EV)
        part = ErrorPart(np.stack(shared, axis=1), own, self.degrees_of_freedom)
        carried = [before.times(self.slope) for before in predicted.parts]
        return Estimates(self.value_eV + self.slope * away, (*carried, part))


def calibrate(
    predicted_eV: Float[ndarray, " value"],
    reference_eV: Float[ndarray, " value"],
    *,
    spread_eV: Float[ndarray, " value"] | None = None,
    kind: Kind | None = None,
    assumed: AssumedErrors | None = None,
    level: float = DEFAULT_LEVEL,
) -> Calibration:
    """Return the correction that takes predictions to reference values.

    Args:
        predicted_eV: what the model says of some slabs.
        reference_eV: what DFT says of the same.
        spread_eV: disagreement of a committee on them; s is then a factor on it.
        kind: which correction; None takes a line from four values on. ``none`` corrects
            nothing and measures the errors alone.
        assumed: gives the scatter where a single value cannot.
        level: probability of the intervals that leaving one out is tested with.

    Raises:
        DataError: no values, or too few for the kind that is asked for.
    """
    x, y = np.asarray(predicted_eV, float), np.asarray(reference_eV, float)
    v = np.ones_like(x) if spread_eV is None else _apply_floor(spread_eV)
    chosen = _chosen(x, kind)
    fit = _Fit.of(x, y, v, chosen)
    left_out = _leave_one_out(fit, v, level)
    s, freedom = fit.scatter, float(fit.freedom)
    if not fit.freedom:  # one value tells an offset, and nothing about the scatter
        s, freedom = (assumed or AssumedErrors()).independent_eV / float(v[0]), np.inf
    total = float(np.sum(1 / v**2))
    spread_of_x = float(np.sum(((x - fit.pivot) / v) ** 2))
    return Calibration(
        kind=chosen,
        n=len(x),
        pivot_eV=fit.pivot,
        value_eV=fit.value,
        slope=fit.slope,
        residual=s,
        value_error_eV=0.0 if chosen == "none" else s / total**0.5,
        slope_error=s / spread_of_x**0.5 if chosen == "line" else 0.0,
        degrees_of_freedom=freedom,
        rmse_before_eV=float(np.sqrt(np.mean((y - x) ** 2))),
        left_out=left_out,
    )


def _chosen(x: Float[ndarray, " value"], kind: Kind | None) -> Kind:
    """Return the kind of correction that these values allow."""
    wide = len(x) > 0 and np.ptp(x) >= NARROW_EV
    chosen: Kind = kind or ("line" if len(x) >= LINE_FROM and wide else "offset")
    needed = 3 if chosen == "line" else 1
    if len(x) < needed or (chosen == "line" and np.ptp(x) == 0.0):
        raise DataError(
            f"{len(x)} reference values do not make a correction of kind '{chosen}'; "
            f"expected at least {needed}, at different energies for a line"
        )
    return chosen


class _Fit(NamedTuple):
    """A weighted least-squares fit of one of the kinds."""

    design: Float[ndarray, "value coefficient"]
    """Divided by the spread, as is the rest."""
    rest: Float[ndarray, " value"]
    pivot: float
    value: float
    slope: float

    @property
    def freedom(self) -> int:
        return self.design.shape[0] - self.design.shape[1]

    @property
    def scatter(self) -> float:
        return float(np.sqrt(np.sum(self.rest**2) / max(self.freedom, 1)))

    @classmethod
    def of(
        cls,
        x: Float[ndarray, " value"],
        y: Float[ndarray, " value"],
        v: Float[ndarray, " value"],
        kind: Kind,
    ) -> "_Fit":
        pivot = float(np.average(x, weights=1 / v**2))
        away = x - pivot
        if kind == "none":
            return cls(np.zeros((len(x), 0)), (y - x) / v, 0.0, 0.0, 1.0)
        if kind == "offset":
            offset = float(np.average(y - x, weights=1 / v**2))
            rest = (y - x - offset) / v
            return cls(1 / v[:, None], rest, pivot, pivot + offset, 1.0)
        # around x̄ the two coefficients are independent
        value = float(np.average(y, weights=1 / v**2))
        slope = float(np.sum(away * y / v**2) / np.sum((away / v) ** 2))
        design = np.stack([1 / v, away / v], axis=1)
        return cls(design, (y - value - slope * away) / v, pivot, value, slope)


def _leave_one_out(
    fit: _Fit, v: Float[ndarray, " value"], level: float
) -> LeaveOneOut | None:
    """Return leave-one-out errors in closed form, from the leverages h.

    Left out, a value misses its prediction by r/(1 - h); without it the scatter is
    s² (n - p) - r²/(v² (1 - h)), over one degree of freedom less.
    """
    q = np.linalg.qr(fit.design)[0]
    keeps = 1 - (q**2).sum(axis=1)
    if fit.freedom < 1 or keeps.min() < 1e-9:
        return None
    missed = fit.rest * v / keeps
    rmse = float(np.sqrt(np.mean(missed**2)))
    freedom = float(fit.freedom - 1)
    if freedom < 1:
        return LeaveOneOut(rmse, None)
    squares = np.sum(fit.rest**2) - fit.rest**2 / keeps
    others = np.maximum(squares, 0.0) / freedom
    half = student_quantile(level, freedom) * np.sqrt(others / keeps) * v
    return LeaveOneOut(rmse, int(np.sum(np.abs(missed) <= half + 1e-9)))


def _apply_floor(spread_eV: Float[ndarray, " value"]) -> Float[ndarray, " value"]:
    return np.maximum(np.asarray(spread_eV, float), SPREAD_FLOOR_EV)


COLUMNS = "slab, dE_eV and, where needed, site and adsorbate"


@dataclass(frozen=True)
class ReferenceValue:
    """One adsorption energy by DFT beside what the model says of the same site."""

    slab: str
    adsorbate: str
    site: str
    dft_eV: float
    model_eV: float
    is_best: bool
    """Whether the site is the one that decides about the slab."""


def read_reference_values(
    path: Path, screening: SavedScreening
) -> tuple[ReferenceValue, ...]:
    """Return the values of a CSV file, against H2O and H2 as in the screening.

    Columns: slab, dE_eV (or dE), site (optional: by default the best one), adsorbate
    (optional: by default the first of the screening; rows of adsorbates that were not
    screened are left out).

    Raises:
        DataError: a row names no slab or site with a result, or no energy.
    """
    if not path.is_file():
        raise DataError(f"no such file: '{path}'; expected a CSV file with {COLUMNS}")
    rows = read_numbered_rows(path)
    column = _energy_column(path, [row for _, row in rows])
    values, seen, foreign = [], set(), Counter[str]()
    for line, row in rows:
        adsorbate = row.get("adsorbate", "").strip("*") or screening.adsorbates[0]
        if not any(row.values()):
            continue
        if adsorbate not in screening.adsorbates:
            foreign[adsorbate] += 1
            continue
        try:
            value = reference_value(row, column, adsorbate, screening)
            if (value.slab, value.adsorbate, value.site) in seen:
                raise ValueError(f"'{value.slab}' {value.site} is there twice")
        except ValueError as error:
            raise DataError(f"'{path}', line {line}: {error}") from error
        seen.add((value.slab, value.adsorbate, value.site))
        values.append(value)
    if not values:
        screened = " or ".join(screening.adsorbates)
        raise DataError(f"'{path}' holds no value for {screened}; expected {COLUMNS}")
    for name, count in foreign.items():
        log.warning("left out: %d values of %s*, which was not screened", count, name)
    return tuple(values)


def _energy_column(path: Path, rows: Sequence[Row]) -> str:
    found = [name for name in ("dE_eV", "dE") if rows and name in rows[0]]
    if len(found) != 1:
        raise DataError(
            f"'{path}' has {'no' if not found else 'more than one'} column with "
            f"energies; expected {COLUMNS}"
        )
    return found[0]


def reference_value(
    row: Row, column: str, adsorbate: str, screening: SavedScreening
) -> ReferenceValue:
    """Return the value of one row beside what the screening says of the same site.

    Args:
        row: slab, its energy in eV and, if not the best, its site.
        column: which one is the energy.
        adsorbate: that was screened.
        screening: to compare with.

    Raises:
        ValueError: the screening has no such result, or the energy is none.
    """
    candidates = {candidate.slab: candidate for candidate in screening.candidates}
    name, wanted = row["slab"], row.get("site", "")
    dft = number(row, column)
    if dft is None:
        raise ValueError(f"'{row.get(column, '')}' is no energy in eV")
    best = candidates[name].on(adsorbate) if name in candidates else None
    if best is None:
        near = difflib.get_close_matches(name, set(candidates) - {name}, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"the screening has no result for {adsorbate} on a slab '{name}'{hint}"
        )
    if wanted in ("", best.site):
        return ReferenceValue(name, adsorbate, best.site, dft, best.dE_eV, True)
    energies = _site_energies(name, adsorbate, screening)
    if wanted not in energies:
        raise ValueError(
            f"'{name}' has no converged site '{wanted}'; it has: {', '.join(energies)}"
        )
    return ReferenceValue(name, adsorbate, wanted, dft, energies[wanted], False)


def _site_energies(
    slab: str, adsorbate: str, screening: SavedScreening
) -> dict[str, float]:
    """Return the lowest ΔE in eV that ended on each site of a slab."""
    energies: dict[str, float] = {}
    for row in screening.sites_of(slab, adsorbate):
        dE = number(row, energy_column(adsorbate))
        settled = is_settled(row.get("status", ""), number(row, "fmax_eV_per_A"))
        if settled and dE is not None:
            site = row.get("final_site") or row.get("site", "")
            energies[site] = min(dE, energies.get(site, dE))
    return energies
