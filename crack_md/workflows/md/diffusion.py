"""Diffusion of an adsorbate along a surface, from its mean square displacement."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.errors import ConfigError
from crack_md.workflows.surfaces.sites import lateral_vectors

A2_PER_FS_TO_CM2_PER_S = 0.1
N_LAGS = 25
FIT_FROM, FIT_TO = 0.05, 0.25
"""Range of lags that is fitted, in block lengths: after vibrations in the site, before
lags with few independent pairs of frames."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A diffusion coefficient along the surface and what it was fitted to."""

    coefficient_cm2_per_s: float
    error_cm2_per_s: float
    """Standard error over blocks of the trajectory."""
    lag_fs: Float[Array, " lag"]
    msd_A2: Float[Array, " lag"]
    """Mean over blocks."""
    n_blocks: int


def surface_path(frames: Sequence[Atoms], *, adsorbate: int) -> Float[Array, "frame 2"]:
    """Return x and y in Å of an atom over the surface, through cell boundaries.

    The motion of all other atoms' center is taken off. Frames must be so close that
    no atom moves by half a cell between two of them.
    """
    path = np.zeros((len(frames), 2))
    path[0] = frames[0].positions[adsorbate, :2]
    others = np.arange(len(frames[0])) != adsorbate
    masses = frames[0].get_masses()[others, None]
    for number in range(1, len(frames)):
        step = lateral_vectors(
            frames[number].positions - frames[number - 1].positions, frames[number]
        )
        drift = (masses * step[others]).sum(axis=0) / masses.sum()
        path[number] = path[number - 1] + (step[adsorbate] - drift)[:2]
    return path


def diffusion_coefficient(
    paths: Sequence[Float[Array, "frame 2"]],
    *,
    time_per_frame_fs: float,
    blocks_per_path: int = 4,
) -> Diffusion:
    """Return D from MSD(t) = c + 4 D t, its error from blocks of the paths.

    The constant c is the swinging about a site. Blocks are taken as independent.

    Args:
        paths: of one or several runs, unwrapped.
        time_per_frame_fs: between two points.
        blocks_per_path: parts that each path is cut into, at least two blocks in all.

    Raises:
        ConfigError: too little data for two blocks.
    """
    length = min(len(path) for path in paths) // blocks_per_path
    blocks = [
        path[start * length : (start + 1) * length]
        for path in paths
        for start in range(blocks_per_path)
    ]
    if length < 40 or len(blocks) < 2:
        raise ConfigError(
            f"{len(blocks)} blocks of {length} frames are too little for a diffusion "
            "coefficient; expected two or more of 40 or more"
        )
    lags = np.unique(np.linspace(1, FIT_TO * length, N_LAGS).astype(int))
    msd = np.array([_mean_square_displacement(block, lags) for block in blocks])
    times = lags * time_per_frame_fs
    fitted = lags >= FIT_FROM * length
    slopes = np.polyfit(times[fitted], msd[:, fitted].T, 1)[0]
    per_block = slopes / 4.0 * A2_PER_FS_TO_CM2_PER_S
    error = per_block.std(ddof=1) / np.sqrt(len(blocks))
    return Diffusion(
        float(per_block.mean()), float(error), times, msd.mean(axis=0), len(blocks)
    )


def _mean_square_displacement(
    path: Float[Array, "frame 2"], lags: NDArray[np.int_]
) -> Float[Array, " lag"]:
    return np.array(
        [((path[lag:] - path[:-lag]) ** 2).sum(axis=1).mean() for lag in lags]
    )
