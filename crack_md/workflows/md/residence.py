"""An adsorbate's path over a surface: residence times, hops, diffusion.

An atom in a hollow swings by half the way to the next one and back, so the nearest site
is no measure of hopping. A new site counts when its core is entered, and it counts
until the core of another one is: recrossings make no hops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crack_md.errors import ConfigError, StructureError
from crack_md.workflows.surfaces.sites import Site, lateral_vectors

CORE_SHARE = 0.6
"""Radius of a core, in half distances to the nearest other site."""
HOLLOWS = ("fcc", "hcp", "hollow", "4fold")


@dataclass(frozen=True, eq=False)
class Place:
    """One site of the cell: a member of a class of equal ones."""

    label: str
    position: Float[np.ndarray, " 3"]
    """Å, in the structure that the sites were found in."""
    contacts: NDArray[np.int_]
    """Surface atoms whose motion it follows."""


@dataclass(frozen=True)
class Hop:
    """One change of site; ``start`` and ``end`` count places."""

    time_fs: float
    start: int
    end: int


@dataclass(frozen=True)
class Stay:
    """All time spent on one class of sites."""

    label: str
    elements: str
    n_places: int
    time_fs: float
    share: float
    n_departures: int
    mean_residence_fs: float | None
    """Time over departures; None while it was never left."""
    residence_error_fs: float | None
    """Standard error of an exponential waiting time: τ/√n."""

    @property
    def name(self) -> str:
        """Return label and elements, these once only."""
        known = self.elements in self.label
        return self.label if known else f"{self.label}  {self.elements}"


@dataclass(frozen=True, eq=False)
class Residence:
    """The stays and hops of one adsorbate atom."""

    places: tuple[Place, ...]
    occupied: Int[np.ndarray, " frame"]
    """Place in every frame; −1 before the first core is entered."""
    stays: tuple[Stay, ...]
    """Longest first."""
    hops: tuple[Hop, ...]
    time_per_frame_fs: float

    def hop_counts(self) -> dict[tuple[str, str], int]:
        """Return how often the adsorbate went from one class of sites to another."""
        counts: dict[tuple[str, str], int] = {}
        for hop in self.hops:
            pair = (self.places[hop.start].label, self.places[hop.end].label)
            counts[pair] = counts.get(pair, 0) + 1
        return counts


def trace_residence(
    frames: Sequence[Atoms],
    *,
    reference: Atoms,
    sites: Sequence[Site],
    adsorbate: int,
    time_per_frame_fs: float,
    kinds: Sequence[str] = HOLLOWS,
) -> Residence:
    """Return which sites an atom visits along a trajectory, and for how long.

    Sites move with the surface atoms they stand on.

    Args:
        frames: the trajectory, at even steps.
        reference: the slab the sites were found on; its atoms come first in the frames.
        sites: of the slab, as `find_sites` returns them.
        adsorbate: index of the atom in the frames.
        time_per_frame_fs: between two frames.
        kinds: which kinds of sites count; bridges are passed, hollows are lived in.

    Raises:
        StructureError: no site is of these kinds, or frames and slab do not fit.
    """
    chosen = [site for site in sites if site.kind in kinds]
    if not chosen:
        raise StructureError(
            f"no site of kind {', '.join(kinds)}; the slab has "
            f"{', '.join(sorted({site.kind for site in sites}))}: name them in kinds"
        )
    if any((f.numbers[: len(reference)] != reference.numbers).any() for f in frames):
        raise StructureError("the atoms of the slab are not the first of every frame")
    places = [place for site in chosen for place in _places(site, reference)]
    core = CORE_SHARE * 0.5 * _nearest_distance(places, reference)
    occupied = np.full(len(frames), -1)
    here = -1
    for number, frame in enumerate(frames):
        distance = _distances(frame, places, reference, adsorbate)
        nearest = int(distance.argmin())
        if distance[nearest] < core:
            here = nearest
        occupied[number] = here
    hops = tuple(
        Hop((number + 1) * time_per_frame_fs, int(before), int(after))
        for number, (before, after) in enumerate(pairwise(occupied))
        if before != after and before >= 0
    )
    stays = _stays(places, chosen, occupied, hops, time_per_frame_fs)
    return Residence(tuple(places), occupied, stays, hops, time_per_frame_fs)


def _places(site: Site, reference: Atoms) -> list[Place]:
    """Return all members of a class of sites, each with the atoms it stands on."""
    places = []
    for position in site.members:
        offsets = reference.positions - position
        flat = lateral_vectors(offsets, reference)
        reach = np.linalg.norm(flat, axis=1)
        top = reference.positions[:, 2] > position[2] - 3.0
        order = np.argsort(np.where(top, reach, np.inf))
        places.append(Place(site.label, position, order[: max(1, len(site.contacts))]))
    return places


def _nearest_distance(places: Sequence[Place], reference: Atoms) -> float:
    """Return the shortest lateral distance in Å between two places or their images."""
    a, b = reference.cell.array[:2]
    shortest = float(min(np.linalg.norm(v) for v in (a, b, a + b, a - b)))
    positions = np.array([place.position for place in places])
    for number, position in enumerate(positions):
        vectors = lateral_vectors(positions[:number] - position, reference)
        shortest = min([shortest, *np.linalg.norm(vectors, axis=1)])
    return float(shortest)


def _distances(
    frame: Atoms, places: Sequence[Place], reference: Atoms, adsorbate: int
) -> Float[np.ndarray, " place"]:
    """Return the lateral distances in Å of the adsorbate from all places, now."""
    moved = frame.positions[: len(reference)] - reference.positions
    moved = lateral_vectors(moved, reference)
    centers = np.array(
        [place.position + moved[place.contacts].mean(axis=0) for place in places]
    )
    vectors = lateral_vectors(centers - frame.positions[adsorbate], reference)
    return np.asarray(np.linalg.norm(vectors, axis=1))


def _stays(
    places: Sequence[Place],
    sites: Sequence[Site],
    occupied: NDArray[np.int_],
    hops: Sequence[Hop],
    time_per_frame_fs: float,
) -> tuple[Stay, ...]:
    known = occupied[occupied >= 0]
    total = len(known) * time_per_frame_fs
    stays = []
    for site in sites:
        own = [n for n, place in enumerate(places) if place.label == site.label]
        time = float(np.isin(known, own).sum() * time_per_frame_fs)
        departures = sum(hop.start in own for hop in hops)
        mean = time / departures if departures else None
        stays.append(
            Stay(
                site.label,
                site.elements,
                len(own),
                time,
                time / total if total else 0.0,
                departures,
                mean,
                None if mean is None else mean / float(np.sqrt(departures)),
            )
        )
    return tuple(sorted(stays, key=lambda stay: -stay.time_fs))


A2_PER_FS_TO_CM2_PER_S = 0.1
N_LAGS = 25
FIT_FROM, FIT_TO = 0.05, 0.25
"""Range of lags that is fitted, in block lengths: after vibrations in the site, before
lags with few independent pairs of frames."""


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A diffusion coefficient along the surface and what it was fitted to."""

    coefficient_cm2_per_s: float
    error_cm2_per_s: float
    """Standard error over blocks of the trajectory."""
    lag_fs: Float[np.ndarray, " lag"]
    msd_A2: Float[np.ndarray, " lag"]
    """Mean over blocks."""
    n_blocks: int


def surface_path(
    frames: Sequence[Atoms], *, adsorbate: int
) -> Float[np.ndarray, "frame 2"]:
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
    paths: Sequence[Float[np.ndarray, "frame 2"]],
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
    path: Float[np.ndarray, "frame 2"], lags: NDArray[np.int_]
) -> Float[np.ndarray, " lag"]:
    return np.array(
        [((path[lag:] - path[:-lag]) ** 2).sum(axis=1).mean() for lag in lags]
    )
