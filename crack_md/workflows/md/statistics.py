"""Straight lines through correlated data."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Series = Float[NDArray[np.float64], " time"]


class Line(NamedTuple):
    """A fitted slope and its standard error."""

    slope: float
    error: float


def fit_line(x: Series, y: Series) -> Line:
    """Return the least-squares slope of y over x, its error for correlated residuals.

    The error of independent residuals is widened by √g, with g their statistical
    inefficiency: energies a femtosecond apart are no independent measurements.
    """
    if len(x) < 3:
        return Line(float("nan"), float("nan"))
    arm = x - x.mean()
    slope = float(arm @ y / (arm @ arm))
    residual = y - y.mean() - slope * arm
    variance = float(residual @ residual) / (len(x) - 2)
    error = np.sqrt(variance * statistical_inefficiency(residual) / (arm @ arm))
    return Line(slope, float(error))


def statistical_inefficiency(series: Series) -> float:
    """Return g = 1 + 2 Σ_t (1 − t/n) ρ(t): n/g values of the series are independent.

    The sum ends where the autocorrelation ρ first falls below zero.
    """
    n = len(series)
    centered = series - series.mean()
    # zero padding keeps the end of the series from meeting its start
    spectrum = np.abs(np.fft.rfft(centered, 2 * n)) ** 2
    correlation = np.fft.irfft(spectrum)[:n]
    if not correlation[0] > 0:
        return 1.0
    rho = correlation / correlation[0]  # holds the factor 1 − t/n already
    ends = np.flatnonzero(rho <= 0)
    last = int(ends[0]) if len(ends) else n
    return float(max(1.0, 1.0 + 2.0 * rho[1:last].sum()))
