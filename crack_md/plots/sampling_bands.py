"""Densities and profiles with the noise that groups of frames show."""

import numpy as np
from ase import units
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.workflows.sampling.metrics import free_energy

Array = NDArray[np.float64]
BAND_SIGMAS = 2.0


def density(counts: Float[Array, "group bin"], edges: Array) -> tuple[Array, Array]:
    """Return a probability density and its standard error from the groups."""
    width = np.diff(edges)
    by_group = counts / counts.sum(axis=1, keepdims=True) / width
    mean = counts.sum(axis=0) / counts.sum() / width
    return mean, by_group.std(axis=0, ddof=1) / np.sqrt(len(counts))


def profile(
    counts: Float[Array, "group bin"], temperature_K: float
) -> tuple[Array, Array]:
    """Return F in eV and its standard error kT σ_p/p, from the groups."""
    F = free_energy(counts.sum(axis=0), temperature_K)
    p = counts / counts.sum(axis=1, keepdims=True)
    error = p.std(axis=0, ddof=1) / np.sqrt(len(counts))
    floor = 1.0 / counts.sum()
    return F, units.kB * temperature_K * error / np.maximum(p.mean(axis=0), floor)


def around(middle: Array, error: Array) -> tuple[Array, Array]:
    """Return the lower and upper edge of the band, ± 2σ."""
    return middle - BAND_SIGMAS * error, middle + BAND_SIGMAS * error


def running(energies: Float[Array, "chain frame"]) -> tuple[Array, Array, Array]:
    """Return the mean over chains and its ± 2σ, smoothed over a fortieth of the run."""
    width = max(1, energies.shape[1] // 40)
    kernel = np.ones(width)
    weights = np.convolve(np.ones(energies.shape[1]), kernel, mode="same")
    smooth = np.array([np.convolve(e, kernel, mode="same") / weights for e in energies])
    error = smooth.std(axis=0, ddof=1) / np.sqrt(len(smooth))
    mean = smooth.mean(axis=0)
    return mean, *around(mean, error)


def centers(edges: Array) -> Array:
    """Return the middles of bins."""
    return 0.5 * (edges[:-1] + edges[1:])
